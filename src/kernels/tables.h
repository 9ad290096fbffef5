// SPDX-License-Identifier: Apache-2.0
// The tables behind GetKernels(), one file each.

#pragma once

#include "kernels/kernels.h"

namespace millstream::kernels {

/// To source.scratch.
void DequantizeRows(const PanelSource& source);

const Kernels& ReferenceKernels(Precision precision);
const Kernels& Avx2Kernels(Precision precision);
const Kernels& Avx512Kernels(Precision precision);
const Kernels& Avx512Bf16Kernels(Precision precision);  // in kF32 it is Avx512Kernels

}  // namespace millstream::kernels
