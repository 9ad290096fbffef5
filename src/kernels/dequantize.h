// SPDX-License-Identifier: Apache-2.0
// Weights as files hold them, to f32, exactly.

#pragma once

#include <cstddef>
#include <cstdint>

namespace millstream::kernels {

/// ggml's block formats: 32 values share a scale (Q4_1: and a minimum).
enum class WeightType { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_1 };

/// How many values a block holds, and its bytes. A row is a whole number of blocks.
std::int64_t BlockValues(WeightType type);
std::int64_t BlockBytes(WeightType type);

/// Writes `count` values, the first of a block. REQUIRES: `count` is a whole number of blocks.
void Dequantize(WeightType type, const std::byte* blocks, std::int64_t count, float* values);

float F16ToF32(std::uint16_t half);
float Bf16ToF32(std::uint16_t half);
/// These round to nearest, ties to even; a NaN stays one.
std::uint16_t F32ToF16(float value);
std::uint16_t F32ToBf16(float value);

}  // namespace millstream::kernels
