// SPDX-License-Identifier: Apache-2.0
#include "kernels/avx512.h"

#include "kernels/simd_attention.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

using S = Avx512;

constexpr Kernels kF32Table =
    MakeTable<S, FmaTile<S, PanelF32<S>>, PanelF32<S>, PageF32<S>, AsF32<S>>(Isa::kAvx512);
constexpr Kernels kBf16Table =
    MakeTable<S, FmaTile<S, PanelBf16<S>>, PanelBf16<S>, PageBf16<S>, AsRounded<S>>(Isa::kAvx512);

}  // namespace

const Kernels& Avx512Kernels(Precision precision) {
  return precision == Precision::kBf16 ? kBf16Table : kF32Table;
}

}  // namespace millstream::kernels
