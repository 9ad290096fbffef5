// SPDX-License-Identifier: Apache-2.0
// Pages of the cache for simd_attention.h: how keys and values lie in them, and what multiplies
// them. `Pair` is two values of a query (of neighbouring dimensions) or two weights (of
// neighbouring tokens), `Words` what it is multiplied by, for kWidth tokens or dimensions.

#pragma once

#include "kernels/simd.h"

namespace millstream::kernels {
namespace {

struct FloatPair {
  float first, second;
};

/// Pairs of f32.
template <class S>
struct FloatPairs {
  using Pair = FloatPair;
  struct Words {
    typename S::F first, second;
  };
  [[gnu::always_inline]] static void Add(typename S::F& sum, Pair x, const Words& words) {
    sum = S::Fma(S::Set(x.first), words.first, sum);
    sum = S::Fma(S::Set(x.second), words.second, sum);
  }
  [[gnu::always_inline]] static Words WithoutSecond(const Words& words) {
    return {words.first, S::Zero()};
  }
  /// Puts kWidth values, as pairs hold them, at place `i`; returns what they were rounded to.
  [[gnu::always_inline]] static typename S::F Put(Pair* pairs, std::int64_t i, typename S::F x) {
    S::Store(reinterpret_cast<float*>(pairs) + i, x);
    return x;
  }
};

// A page holds keys, then values. In f32: keys [head_dim][16], values [16][padded]. In bf16, as
// 32-bit words of two, the first in the low half: keys [head_dim / 2][16], of two dimensions;
// values [8][padded], of two tokens; queries and weights are rounded to bf16 too.
template <class S>
struct PageF32 : FloatPairs<S> {
  using Words = typename FloatPairs<S>::Words;
  static constexpr std::int64_t kBytes = 4;  // a value
  /// Dimensions 2d and 2d + 1 of tokens [v * kWidth, (v + 1) * kWidth).
  [[gnu::always_inline]] static Words LoadKeys(const std::byte* keys, std::int64_t d, int v) {
    const float* at = reinterpret_cast<const float*>(keys) + 2 * d * kPageTokens + v * S::kWidth;
    return {S::Load(at), S::Load(at + kPageTokens)};
  }
  [[gnu::always_inline]] static void FetchKeys(const std::byte* keys, std::int64_t d, int v) {
    const float* at = reinterpret_cast<const float*>(keys) + 2 * d * kPageTokens + v * S::kWidth;
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + kPageTokens, 0, 2);
  }
  /// Dimensions [d, d + kWidth) of tokens 2t and 2t + 1.
  [[gnu::always_inline]] static Words LoadValues(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    const float* at = reinterpret_cast<const float*>(values) + 2 * t * padded + d;
    return {S::Load(at), S::Load(at + padded)};
  }
  [[gnu::always_inline]] static void FetchValues(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    const float* at = reinterpret_cast<const float*>(values) + 2 * t * padded + d;
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + padded, 0, 2);
  }
  static void Store(
      const float* key,
      const float* value,
      std::int64_t head_dim,
      std::int64_t slot,
      std::byte* page
  ) {
    float* keys = reinterpret_cast<float*>(page);
    const std::int64_t padded = PaddedLength(head_dim);
    float* values = keys + padded * kPageTokens + slot * padded;
    for (std::int64_t d = 0; d < head_dim; ++d) keys[d * kPageTokens + slot] = key[d];
    for (std::int64_t d = 0; d < head_dim; ++d) values[d] = value[d];
    for (std::int64_t d = head_dim; d < padded; ++d) values[d] = 0;
  }
};

/// Of words of two bf16.
template <class S>
struct PageHalves {
  static constexpr std::int64_t kBytes = 2;
  [[gnu::always_inline]] static typename S::I LoadKeyWords(
      const std::byte* keys, std::int64_t d, int v
  ) {
    return S::LoadWords(
        reinterpret_cast<const std::uint32_t*>(keys) + d * kPageTokens + v * S::kWidth
    );
  }
  [[gnu::always_inline]] static typename S::I LoadValueWords(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    return S::LoadWords(reinterpret_cast<const std::uint32_t*>(values) + t * padded + d);
  }
  [[gnu::always_inline]] static void FetchKeys(const std::byte* keys, std::int64_t d, int v) {
    __builtin_prefetch(keys + (d * kPageTokens + v * S::kWidth) * 4, 0, 2);
  }
  [[gnu::always_inline]] static void FetchValues(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    __builtin_prefetch(values + (t * padded + d) * 4, 0, 2);
  }
  static void Store(
      const float* key,
      const float* value,
      std::int64_t head_dim,
      std::int64_t slot,
      std::byte* page
  ) {
    auto* keys = reinterpret_cast<std::uint32_t*>(page);
    const std::int64_t padded = PaddedLength(head_dim);
    // Halves of words, since another thread may store the token beside it.
    auto* values = reinterpret_cast<std::uint16_t*>(keys + padded / 2 * kPageTokens) +
                   slot / 2 * padded * 2 + slot % 2;
    alignas(64) std::uint32_t words[kMaxHeadDim];
    RoundWords(key, head_dim, words);
    for (std::int64_t d = 0; d < head_dim; d += 2) {
      keys[d / 2 * kPageTokens + slot] = words[d] >> 16 | words[d + 1];
    }
    RoundWords(value, head_dim, words);
    for (std::int64_t d = 0; d < padded; ++d) {
      values[2 * d] = static_cast<std::uint16_t>(words[d] >> 16);
    }
  }

 private:
  /// bf16 in the high halves, zeros in the low ones and up to the padded length.
  static void RoundWords(const float* values, std::int64_t length, std::uint32_t* words) {
    alignas(64) float tail[32] = {};
    const std::int64_t whole = length / 32 * 32;
    for (std::int64_t i = whole; i < length; ++i) tail[i - whole] = values[i];
    for (std::int64_t i = 0; i < PaddedLength(length); i += S::kWidth) {
      const typename S::F x = S::Load(i < whole ? values + i : tail + i - whole);
      S::Store(reinterpret_cast<float*>(words + i), S::HighHalves(S::RoundToBf16(x)));
    }
  }
};

template <class S>
struct PageBf16 : FloatPairs<S>, PageHalves<S> {
  using Words = typename FloatPairs<S>::Words;
  using Halves = PageHalves<S>;
  using Pair = FloatPair;
  [[gnu::always_inline]] static typename S::F Put(Pair* pairs, std::int64_t i, typename S::F x) {
    return FloatPairs<S>::Put(pairs, i, S::HighHalves(S::RoundToBf16(x)));
  }
  [[gnu::always_inline]] static Words LoadKeys(const std::byte* keys, std::int64_t d, int v) {
    const typename S::I words = Halves::LoadKeyWords(keys, d, v);
    return {S::LowHalves(words), S::HighHalves(words)};
  }
  [[gnu::always_inline]] static Words LoadValues(
      const std::byte* values, std::int64_t t, std::int64_t d, std::int64_t padded
  ) {
    const typename S::I words = Halves::LoadValueWords(values, t, d, padded);
    return {S::LowHalves(words), S::HighHalves(words)};
  }
};

template <class Page>
std::int64_t PageBytes(std::int64_t head_dim) {
  return 2 * kPageTokens * PaddedLength(head_dim) * Page::kBytes;
}

}  // namespace
}  // namespace millstream::kernels
