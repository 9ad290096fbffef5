// SPDX-License-Identifier: Apache-2.0
// The tables behind GetKernels(), one file each.

#pragma once

#include "kernels/kernels.h"

namespace millstream::kernels {

// gelu(x) is about x / 2 * (1 + tanh(kGeluSlope * (x + kGeluCubic * x^3))).
constexpr float kGeluSlope = 0.7978845608F;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715F;

/// What MeasurePeaks() times.
struct PeakLoops {
  // Multiply-adds in registers alone, as products of that type do them; how many operations that
  // was, two a multiply-add.
  std::int64_t (*f32)();
  std::int64_t (*bf16)();
  std::int64_t (*int8)();
  /// Reads a multiple of 256 bytes.
  void (*read)(const std::byte* data, std::int64_t size_bytes);
};

/// To source.scratch.
void DequantizeRows(const PanelSource& source);

const Kernels& ReferenceKernels(Precision precision);
const Kernels& Avx2Kernels(Precision precision);
const Kernels& Avx512Kernels(Precision precision);
const Kernels& Avx512Bf16Kernels(Precision precision);  // in kF32 it is Avx512Kernels

PeakLoops ReferencePeakLoops();
PeakLoops Avx2PeakLoops();
PeakLoops Avx512PeakLoops();
PeakLoops Avx512Bf16PeakLoops();

}  // namespace millstream::kernels
