// SPDX-License-Identifier: Apache-2.0
// The tables behind GetKernels(), one file each.

#pragma once

#include "kernels/kernels.h"

namespace millstream::kernels {

// gelu(x) is about x / 2 * (1 + tanh(kGeluSlope * (x + kGeluCubic * x^3))).
constexpr float kGeluSlope = 0.7978845608F;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715F;

/// To source.scratch.
void DequantizeRows(const PanelSource& source);

const Kernels& ReferenceKernels(Precision precision);
const Kernels& Avx2Kernels(Precision precision);
const Kernels& Avx512Kernels(Precision precision);
const Kernels& Avx512Bf16Kernels(Precision precision);  // in kF32 it is Avx512Kernels

}  // namespace millstream::kernels
