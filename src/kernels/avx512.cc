// SPDX-License-Identifier: Apache-2.0
#include "kernels/avx512.h"

#include "kernels/simd_int8.h"
#include "kernels/simd_peak.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

using S = Avx512;

constexpr Kernels kF32Table =
    MakeTable<S, FmaTile<S, PanelF32<S>>, PanelF32<S>, PageF32<S>, AsF32<S>>(Isa::kAvx512);
constexpr Kernels kBf16Table =
    MakeTable<S, FmaTile<S, PanelBf16<S>>, PanelBf16<S>, PageBf16<S>, AsRounded<S>>(Isa::kAvx512);

// Without VNNI. Halves of weights' bytes, since pairs of whole products exceed 16 bits.
struct ByteDots {
  [[gnu::always_inline]] static void Add(S::I& sum, S::I weights, S::I x) {
    const S::I low = _mm512_maddubs_epi16(S::LowNibbles(weights), x);
    const S::I high = _mm512_maddubs_epi16(S::HighNibbles(weights), x);
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(low, _mm512_set1_epi16(1)));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(high, _mm512_set1_epi16(16)));
  }
};

constexpr Kernels kInt8Table = MakeInt8Table<S, ByteDots, PageBf16<S>>(Isa::kAvx512);

}  // namespace

const Kernels& Avx512Kernels(Precision precision) {
  if (precision == Precision::kInt8) return kInt8Table;
  return precision == Precision::kBf16 ? kBf16Table : kF32Table;
}

PeakLoops Avx512PeakLoops() {
  constexpr auto kF32 = AddInRegisters<AddF32<S>, S::F, 24>;
  return {kF32, kF32, AddInRegisters<AddInt8<S, ByteDots>, S::I, 12>, ReadBytes<S>};
}

}  // namespace millstream::kernels
