// SPDX-License-Identifier: Apache-2.0
// Weights as files hold them, to f32, exactly.

#pragma once

#include <cstddef>
#include <cstdint>

namespace millstream::kernels {

/// Floats, and ggml's block formats: 32 values that share a scale and maybe a minimum; in the K
/// types, super-blocks of 256 values whose parts have scales of a few bits.
enum class WeightType { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };

constexpr std::int64_t kBlockColumns = 32;

/// How many values a block holds, and its bytes. A row is a whole number of blocks.
std::int64_t BlockValues(WeightType type);
std::int64_t BlockBytes(WeightType type);

/// Writes `count` values, the first of a block. REQUIRES: `count` is a whole number of blocks.
void Dequantize(WeightType type, const std::byte* blocks, std::int64_t count, float* values);

/// Weights of a block format: scales[i / 16] * (q[i] - middle) + minima[i / 16].
struct WeightBlock {
  std::uint8_t q[kBlockColumns] = {};
  float scales[2] = {};
  float minima[2] = {};  // zeros if `middle` is not
  int middle = 0;
};
/// Reads columns [column, column + 32) of a row. REQUIRES: `column` is a multiple of 32, and the
/// type is none of floats.
WeightBlock ReadBlock(WeightType type, const std::byte* row, std::int64_t column);

float F16ToF32(std::uint16_t half);
float Bf16ToF32(std::uint16_t half);
/// These round to nearest, ties to even; a NaN stays one.
std::uint16_t F32ToF16(float value);
std::uint16_t F32ToBf16(float value);

}  // namespace millstream::kernels
