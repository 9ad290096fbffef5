// SPDX-License-Identifier: Apache-2.0
#include "kernels/avx512.h"
#include "kernels/simd_int8.h"
#include "kernels/simd_peak.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

using S = Avx512;

/// FmaTile with a dot product of two columns in one instruction.
struct DotTile {
  static constexpr int kMaxRows = S::kTileRows;

  template <int kRows>
  [[gnu::noinline]] static void Multiply(const PanelProduct& p, std::int64_t row, int first) {
    S::F sums[kRows][2];
    StartSums<S, kRows, 2>(p.bias, first, sums);
    // In pairs of bf16, which is a word.
    const std::int64_t stride = p.columns / 2;
    const auto* a = static_cast<const std::uint32_t*>(p.activations) + row * stride;
    const auto* panel =
        static_cast<const std::uint32_t*>(p.panel) + std::int64_t{first} * S::kWidth;
    Prefetcher<PanelBf16<S>> prefetcher(p, row, kRows);
    for (std::int64_t k = 0; k < p.columns; k += 2, ++a, panel += kPanelRows) {
      const S::I w0 = S::LoadWords(panel);
      const S::I w1 = S::LoadWords(panel + S::kWidth);
      prefetcher.Step();
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const S::I x = _mm512_set1_epi32(static_cast<int>(a[r * stride]));
        Dot(sums[r][0], x, w0);
        Dot(sums[r][1], x, w1);
      }
    }
    WriteSums<S, kRows, 2>(p, row, first, sums);
  }

  /// sum += x . w. As assembly, since GCC 12 copies the sums of the intrinsic from register to
  /// register.
  [[gnu::always_inline]] static void Dot(S::F& sum, S::I x, S::I w) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  }
};

/// PageBf16 with dot products of pairs.
struct PageDots : PageHalves<S> {
  using Pair = std::uint32_t;
  using Words = S::I;
  [[gnu::always_inline]] static Words LoadKeys(const std::byte* keys, std::int64_t d, int v) {
    return LoadKeyWords(keys, d, v);
  }
  [[gnu::always_inline]] static Words LoadValues(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    return LoadValueWords(values, t, d, padded);
  }
  [[gnu::always_inline]] static void Add(S::F& sum, Pair x, Words words) {
    DotTile::Dot(sum, _mm512_set1_epi32(static_cast<int>(x)), words);
  }
  [[gnu::always_inline]] static Words WithoutSecond(Words words) {
    return _mm512_and_si512(words, _mm512_set1_epi32(0xffff));
  }
  [[gnu::always_inline]] static S::F Put(Pair* pairs, std::int64_t i, S::F x) {
    const S::I rounded = S::RoundToBf16(x);
    S::StoreHighHalves(reinterpret_cast<std::uint16_t*>(pairs) + i, rounded);
    return S::HighHalves(rounded);
  }
};

// What has bf16 dot products has those of bytes.
struct ByteDots {
  /// As assembly, for the reason above.
  [[gnu::always_inline]] static void Add(S::I& sum, S::I weights, S::I x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
  }
};

struct AddBf16 {
  static constexpr std::int64_t kOperations = 2 * 2 * S::kWidth;
  static S::F Operand() { return S::Set(1.0F); }
  [[gnu::always_inline]] static void Add(S::F& sum, S::F x) {
    const S::I pairs = _mm512_castps_si512(x);
    DotTile::Dot(sum, pairs, pairs);
  }
};

constexpr Kernels kInt8Table = MakeInt8Table<S, ByteDots, PageDots>(Isa::kAvx512Bf16);
constexpr Kernels kTable =
    MakeTable<S, DotTile, PanelBf16<S>, PageDots, AsBf16<S>>(Isa::kAvx512Bf16);

}  // namespace

const Kernels& Avx512Bf16Kernels(Precision precision) {
  return precision == Precision::kInt8 ? kInt8Table : kTable;
}

PeakLoops Avx512Bf16PeakLoops() {
  PeakLoops loops = Avx512PeakLoops();
  loops.bf16 = AddInRegisters<AddBf16, S::F, 24>;
  loops.int8 = AddInRegisters<AddInt8<S, ByteDots>, S::I, 24>;
  return loops;
}

}  // namespace millstream::kernels
