// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "kernels/simd_int8.h"
#include "kernels/simd_peak.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kTileRows = 6;   // of a product: 12 sums, and 4 registers to spare
  static constexpr int kInt8Rows = 2;   // of an int8 product: 8 sums
  static constexpr int kQueryRows = 3;  // of attention
  static constexpr int kAttentionSums = 12;

  static F Zero() { return _mm256_setzero_ps(); }
  static F Set(float x) { return _mm256_set1_ps(x); }
  static F Load(const float* x) { return _mm256_loadu_ps(x); }
  static void Store(float* to, F x) { _mm256_storeu_ps(to, x); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static float First(F x) { return _mm256_cvtss_f32(x); }
  static float Sum(F x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
  static float Largest(F x) {
    __m128 most = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
  }
  static F RoundToInteger(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT); }
  /// x * 2^power, and 0 below the smallest normal number; a NaN if that is what power is.
  static F ScaleByPower(F x, F power) {
    const F normal = _mm256_cmp_ps(power, Set(-126.0F), _CMP_NLT_UQ);
    const I exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
    return _mm256_and_ps(normal, Mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))));
  }
  static F KeepNan(F nan, F x) {
    return _mm256_blendv_ps(nan, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  static bool AnyNan(F x) { return _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)) != 0; }

  static I LoadWords(const std::uint32_t* x) {
    return _mm256_loadu_si256(reinterpret_cast<const I*>(x));
  }
  // The bf16 in one half of each word, as f32.
  static F LowHalves(I words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }
  static F HighHalves(I words) {
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-0x10000)));
  }
  static I RoundToBf16(F x) {
    const I bits = _mm256_castps_si256(x);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const I sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const I nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const F is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(sum, nan, _mm256_castps_si256(is_nan));
  }

  static I ZeroWords() { return _mm256_setzero_si256(); }
  static I LoadBytes(const char* x) { return _mm256_loadu_si256(reinterpret_cast<const I*>(x)); }
  /// Four bytes, in each word.
  static I SetWord(const char* x) {
    std::int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm256_set1_epi32(word);
  }
  static I LowNibbles(I x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
  static I HighNibbles(I x) { return LowNibbles(_mm256_srli_epi16(x, 4)); }
  static F ToFloat(I x) { return _mm256_cvtepi32_ps(x); }
  static F LoadHalves(const char* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  }
  /// Integers of -127 to 127.
  static void StoreBytes(std::int8_t* to, F x) {
    const I words = _mm256_cvtps_epi32(x);
    const __m128i halves =
        _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(halves, halves));
  }
};

using S = Avx2;

constexpr Kernels kF32Table =
    MakeTable<S, FmaTile<S, PanelF32<S>>, PanelF32<S>, PageF32<S>, AsF32<S>>(Isa::kAvx2);
constexpr Kernels kBf16Table =
    MakeTable<S, FmaTile<S, PanelBf16<S>>, PanelBf16<S>, PageBf16<S>, AsRounded<S>>(Isa::kAvx2);

// Halves of weights' bytes, since pairs of whole products exceed 16 bits.
struct ByteDots {
  [[gnu::always_inline]] static void Add(S::I& sum, S::I weights, S::I x) {
    const S::I low = _mm256_maddubs_epi16(S::LowNibbles(weights), x);
    const S::I high = _mm256_maddubs_epi16(S::HighNibbles(weights), x);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
  }
};

constexpr Kernels kInt8Table = MakeInt8Table<S, ByteDots, PageBf16<S>>(Isa::kAvx2);

}  // namespace

const Kernels& Avx2Kernels(Precision precision) {
  if (precision == Precision::kInt8) return kInt8Table;
  return precision == Precision::kBf16 ? kBf16Table : kF32Table;
}

PeakLoops Avx2PeakLoops() {
  constexpr auto kF32 = AddInRegisters<AddF32<S>, S::F, 12>;
  return {kF32, kF32, AddInRegisters<AddInt8<S, ByteDots>, S::I, 8>, ReadBytes<S>};
}

}  // namespace millstream::kernels
