// SPDX-License-Identifier: Apache-2.0
// The tables behind GetKernels(), one file each.

#pragma once

#include "kernels/kernels.h"

namespace millstream::kernels {

const Kernels& ReferenceKernels(Precision precision);
const Kernels& Avx2Kernels(Precision precision);
const Kernels& Avx512Kernels(Precision precision);
const Kernels& Avx512Bf16Kernels();  // kBf16; in f32 it is the same as Avx512Kernels

}  // namespace millstream::kernels
