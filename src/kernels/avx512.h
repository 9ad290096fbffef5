// SPDX-License-Identifier: Apache-2.0
// Vectors of AVX-512 for simd.h.

#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC bug 105593: its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace millstream::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  static constexpr int kWidth = 16;
  static constexpr int kTileRows = 12;  // of a product: 24 sums, and 8 registers to spare
  static constexpr int kInt8Rows = 6;   // of an int8 product: 24 sums
  static constexpr int kQueryRows = 6;  // of attention
  static constexpr int kAttentionSums = 24;

  static F Zero() { return _mm512_setzero_ps(); }
  static F Set(float x) { return _mm512_set1_ps(x); }
  static F Load(const float* x) { return _mm512_loadu_ps(x); }
  static void Store(float* to, F x) { _mm512_storeu_ps(to, x); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static float First(F x) { return _mm512_cvtss_f32(x); }
  static float Sum(F x) { return _mm512_reduce_add_ps(x); }
  static float Largest(F x) { return _mm512_reduce_max_ps(x); }
  static F RoundToInteger(F x) { return _mm512_roundscale_ps(x, 0); }
  static F ScaleByPower(F x, F power) { return _mm512_scalef_ps(x, power); }
  /// A NaN in each lane where either has one.
  static F KeepNan(F nan, F x) {
    return _mm512_mask_mov_ps(nan, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
  }
  static bool AnyNan(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0; }

  static I LoadWords(const std::uint32_t* x) { return _mm512_loadu_si512(x); }
  // The bf16 in one half of each word, as f32.
  static F LowHalves(I words) { return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)); }
  static F HighHalves(I words) {
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)));
  }
  /// Rounded to bf16 in the high halves; the low ones are left as they come.
  static I RoundToBf16(F x) {
    const I bits = _mm512_castps_si512(x);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const I nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_mask_mov_epi32(sum, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
  }

  static I ZeroWords() { return _mm512_setzero_si512(); }
  static I LoadBytes(const char* x) { return _mm512_loadu_si512(x); }
  /// Four bytes, in each word.
  static I SetWord(const char* x) {
    std::int32_t word;
    __builtin_memcpy(&word, x, sizeof word);
    return _mm512_set1_epi32(word);
  }
  static I LowNibbles(I x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
  static I HighNibbles(I x) { return LowNibbles(_mm512_srli_epi16(x, 4)); }
  static F ToFloat(I x) { return _mm512_cvtepi32_ps(x); }
  static F LoadHalves(const char* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
  }
  /// Integers of -127 to 127.
  static void StoreBytes(std::int8_t* to, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
  static void StoreHighHalves(std::uint16_t* to, I words) {
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16))
    );
  }
};

}  // namespace
}  // namespace millstream::kernels
