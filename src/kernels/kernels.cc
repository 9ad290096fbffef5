// SPDX-License-Identifier: Apache-2.0
#include "kernels/kernels.h"

#include <cmath>

#include "kernels/tables.h"

namespace millstream::kernels {

const Kernels& GetKernels(Isa isa, Precision precision) {
  switch (isa) {
    case Isa::kReference:
      return ReferenceKernels(precision);
    case Isa::kAvx2:
      return Avx2Kernels(precision);
    case Isa::kAvx512:
      return Avx512Kernels(precision);
    case Isa::kAvx512Bf16:
      return precision == Precision::kF32 ? Avx512Kernels(precision) : Avx512Bf16Kernels(precision);
  }
  return ReferenceKernels(precision);
}

void DequantizeRows(const PanelSource& source) {
  for (std::int64_t r = 0; r < source.num_rows; ++r) {
    const PanelSource::Row& row = source.rows[r];
    Dequantize(row.type, row.data, source.columns, source.scratch + r * source.columns);
  }
}

void Rotate(
    float* heads,
    std::int64_t num_heads,
    std::int64_t head_dim,
    const float* cosines,
    const float* sines,
    float scale
) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < num_heads; ++head) {
    float* __restrict first = heads + head * head_dim;
    float* __restrict second = first + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = first[i];
      const float b = second[i];
      first[i] = (a * cosines[i] - b * sines[i]) * scale;
      second[i] = (b * cosines[i] + a * sines[i]) * scale;
    }
  }
}

void NormInPlace(
    float* rows, std::int64_t count, std::int64_t length, const float* weight, float epsilon
) {
  constexpr std::int64_t kSums = 16;  // apart, so that they can be added side by side
  for (float* __restrict row = rows; count > 0; --count, row += length) {
    float sums[kSums] = {};
    const std::int64_t whole = length / kSums * kSums;
    for (std::int64_t i = 0; i < whole; i += kSums) {
      for (std::int64_t s = 0; s < kSums; ++s) sums[s] += row[i + s] * row[i + s];
    }
    float sum = 0;
    for (const float part : sums) sum += part;
    for (std::int64_t i = whole; i < length; ++i) sum += row[i] * row[i];
    const float scale = 1 / std::sqrt(sum / static_cast<float>(length) + epsilon);
    for (std::int64_t i = 0; i < length; ++i) row[i] = row[i] * scale * weight[i];
  }
}

}  // namespace millstream::kernels
