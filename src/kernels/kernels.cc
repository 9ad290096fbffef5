// SPDX-License-Identifier: Apache-2.0
#include "kernels/kernels.h"

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

}  // namespace millstream::kernels
