// SPDX-License-Identifier: Apache-2.0
// Attention over a paged cache for simd.h. Queries and weights are f32; keys and values f32 or
// bf16.

#pragma once

#include "kernels/simd.h"

namespace millstream::kernels {
namespace {

// A page holds keys, then values. In f32: keys [head_dim][16], values [16][padded]. In bf16, as
// 32-bit words: keys [head_dim / 2][16], a word the pair of dimensions (2i, 2i + 1) of one token;
// values [16][padded / 2], where a word of each 16 pairs dimensions (i, i + 16) of 32.
template <class S>
struct PageF32 {
  static constexpr std::int64_t kBytes = 4;  // a value
  /// Dimensions d (even) and d + 1 of tokens [v * kWidth, (v + 1) * kWidth).
  [[gnu::always_inline]] static void LoadKeys(
      const std::byte* keys, std::int64_t d, int v, typename S::F* even, typename S::F* odd
  ) {
    const float* at = reinterpret_cast<const float*>(keys) + d * kPageTokens + v * S::kWidth;
    *even = S::Load(at);
    *odd = S::Load(at + kPageTokens);
  }
  /// 32 dimensions from d of one token.
  [[gnu::always_inline]] static void LoadValues(
      const std::byte* token, std::int64_t d, typename S::F* vectors
  ) {
    const float* at = reinterpret_cast<const float*>(token) + d;
#pragma GCC unroll 4
    for (int v = 0; v < 32 / S::kWidth; ++v) vectors[v] = S::Load(at + v * S::kWidth);
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

template <class S>
struct PageBf16 {
  static constexpr std::int64_t kBytes = 2;
  [[gnu::always_inline]] static void LoadKeys(
      const std::byte* keys, std::int64_t d, int v, typename S::F* even, typename S::F* odd
  ) {
    const auto* at =
        reinterpret_cast<const std::uint32_t*>(keys) + d / 2 * kPageTokens + v * S::kWidth;
    const typename S::I pairs = S::LoadWords(at);
    *even = S::LowHalves(pairs);
    *odd = S::HighHalves(pairs);
  }
  [[gnu::always_inline]] static void LoadValues(
      const std::byte* token, std::int64_t d, typename S::F* vectors
  ) {
    const auto* at = reinterpret_cast<const std::uint32_t*>(token) + d / 2;
#pragma GCC unroll 2
    for (int v = 0; v < 16 / S::kWidth; ++v) {
      const typename S::I pairs = S::LoadWords(at + v * S::kWidth);
      vectors[v] = S::LowHalves(pairs);
      vectors[v + 16 / S::kWidth] = S::HighHalves(pairs);
    }
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
    std::uint32_t* values = keys + (padded * kPageTokens + slot * padded) / 2;
    for (std::int64_t d = 0; d < head_dim; d += 2) {
      keys[d / 2 * kPageTokens + slot] = Bf16Bits(key[d]) | (Bf16Bits(key[d + 1]) << 16);
    }
    const auto bits = [&](std::int64_t d) { return d < head_dim ? Bf16Bits(value[d]) : 0U; };
    for (std::int64_t d = 0; d < padded; d += 32) {
      for (std::int64_t i = 0; i < 16; ++i) {
        values[d / 2 + i] = bits(d + i) | (bits(d + 16 + i) << 16);
      }
    }
  }
};

template <class Page>
std::int64_t PageBytes(std::int64_t head_dim) {
  return 2 * kPageTokens * PaddedLength(head_dim) * Page::kBytes;
}

/// A few query rows on their way through the cache: what each has seen so far.
struct RowState {
  const float* query;
  std::int64_t limit;  // how many positions it sees
  float* output;
};

template <class S, class Page, int kRows>
struct AttentionTile {
  using F = typename S::F;
  static constexpr int kPageVectors = static_cast<int>(kPageTokens) / S::kWidth;
  static constexpr int kUnitVectors = 32 / S::kWidth;  // vectors of 32 dimensions

  const Attention& attention;
  const RowState* rows;
  std::int64_t limit;  // the largest of the rows'
  std::int64_t padded;
  float* scores;  // [kRows][kBlockTokens]
  float* sums;    // [kRows][padded]
  float largest[kRows];
  float totals[kRows];
  float corrections[kRows];

  const std::byte* PageAt(std::int64_t page) const {
    return attention.cache + attention.pages[page] * attention.page_stride;
  }

  /// Scores of kPages pages from `page`, the block's page number `slot` on.
  template <int kPages>
  [[gnu::noinline]] void Score(std::int64_t page, std::int64_t slot) {
    F dots[kPages][kRows][kPageVectors];
    const std::byte* keys[kPages];
#pragma GCC unroll 4
    for (int p = 0; p < kPages; ++p) {
      keys[p] = PageAt(page + p);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) dots[p][r][v] = S::Zero();
      }
    }
    for (std::int64_t d = 0; d < attention.head_dim; d += 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) {
          F even;
          F odd;
          Page::LoadKeys(keys[p], d, v, &even, &odd);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            dots[p][r][v] = S::Fma(S::Set(rows[r].query[d]), even, dots[p][r][v]);
            dots[p][r][v] = S::Fma(S::Set(rows[r].query[d + 1]), odd, dots[p][r][v]);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) {
          float* to = scores + r * kBlockTokens + (slot + p) * kPageTokens + v * S::kWidth;
          S::Store(to, dots[p][r][v]);
        }
      }
    }
  }

  /// Turns the scores of a block into weights, and carries the row's running maximum and total on.
  void Soften(int r, std::int64_t block, std::int64_t tokens) {
    float* score = scores + r * kBlockTokens;
    for (std::int64_t t = rows[r].limit > block ? rows[r].limit - block : 0; t < tokens; ++t) {
      score[t] = kMasked;
    }
    F most = S::Set(largest[r]);
    for (std::int64_t t = 0; t < tokens; t += S::kWidth) most = S::Max(most, S::Load(score + t));
    const float now = S::Largest(most);
    corrections[r] = S::First(Exp<S>(S::Set(largest[r] - now)));
    largest[r] = now;
    const F shift = S::Set(now);
    F total = S::Zero();
    for (std::int64_t t = 0; t < tokens; t += S::kWidth) {
      const F weight = Exp<S>(S::Sub(S::Load(score + t), shift));
      total = S::Add(total, weight);
      S::Store(score + t, weight);
    }
    totals[r] = totals[r] * corrections[r] + S::Sum(total);
  }

  /// Adds the block's weighted values, kUnits * 32 dimensions from d.
  template <int kUnits>
  [[gnu::noinline]] void AddValues(std::int64_t block, std::int64_t d) {
    constexpr int kVectors = kUnits * kUnitVectors;
    F sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F correction = S::Set(corrections[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = S::Mul(correction, S::Load(sums + r * padded + d + v * S::kWidth));
      }
    }
    const std::int64_t end = Smaller(limit - block, kBlockTokens);
    for (std::int64_t t = 0; t < end;) {
      const std::byte* token =
          PageAt((block + t) / kPageTokens) + padded * kPageTokens * Page::kBytes;
      const std::int64_t page_end = Smaller(end, t + kPageTokens);
      for (; t < page_end; ++t, token += padded * Page::kBytes) {
        F values[kVectors];
#pragma GCC unroll 2
        for (std::int64_t u = 0; u < kUnits; ++u) {
          Page::LoadValues(token, d + u * 32, values + u * kUnitVectors);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const F weight = S::Set(scores[r * kBlockTokens + t]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sum[r][v] = S::Fma(weight, values[v], sum[r][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        S::Store(sums + r * padded + d + v * S::kWidth, sum[r][v]);
      }
    }
  }

  void Run() {
    for (int r = 0; r < kRows; ++r) {
      largest[r] = kMasked;
      totals[r] = 0;
      for (std::int64_t d = 0; d < padded; ++d) sums[r * padded + d] = 0;
    }
    const std::int64_t num_pages = (limit + kPageTokens - 1) / kPageTokens;
    for (std::int64_t first = 0; first < num_pages; first += kBlockPages) {
      const std::int64_t pages = Smaller(kBlockPages, num_pages - first);
      std::int64_t p = 0;
      for (; p + S::kScorePages <= pages; p += S::kScorePages) Score<S::kScorePages>(first + p, p);
      for (; p < pages; ++p) Score<1>(first + p, p);
      const std::int64_t block = first * kPageTokens;
      for (int r = 0; r < kRows; ++r) Soften(r, block, pages * kPageTokens);
      std::int64_t d = 0;
      for (; d + S::kValueUnits * 32 <= padded; d += S::kValueUnits * 32) {
        AddValues<S::kValueUnits>(block, d);
      }
      for (; d < padded; d += 32) AddValues<1>(block, d);
    }
    Finish();
  }

  void Finish() {
    for (int r = 0; r < kRows; ++r) {
      float* sum = sums + r * padded;
      const F total = S::Set(totals[r]);
      for (std::int64_t d = 0; d < padded; d += S::kWidth) {
        S::Store(sum + d, S::Div(S::Load(sum + d), total));
      }
      for (std::int64_t d = 0; d < attention.head_dim; ++d) rows[r].output[d] = sum[d];
    }
  }
};

template <class S, class Page, int kRows>
void AttendRows(const Attention& attention, const RowState* rows, int count) {
  if constexpr (kRows > 0) {
    if (count != kRows) return AttendRows<S, Page, kRows - 1>(attention, rows, count);
    alignas(64) float scores[kRows * kBlockTokens];
    alignas(64) float sums[kRows * kMaxHeadDim];
    AttentionTile<S, Page, kRows> tile{
        attention,
        rows,
        rows[kRows - 1].limit,
        PaddedLength(attention.head_dim),
        scores,
        sums,
        {},
        {},
        {}
    };
    tile.Run();
  }
}

template <class S, class Page>
void Attend(const Attention& attention) {
  RowState rows[S::kQueryRows];
  const std::int64_t num_rows = attention.tokens * attention.group;
  const std::int64_t tiles = (num_rows + S::kQueryRows - 1) / S::kQueryRows;
  for (std::int64_t t = 0, row = 0; t < tiles; ++t) {
    const std::int64_t end = row + (num_rows - row + tiles - t - 1) / (tiles - t);
    int count = 0;
    for (; row < end; ++row) {
      const std::int64_t token = row / attention.group;
      const std::int64_t head = row % attention.group * attention.head_dim;
      rows[count++] = {
          attention.queries + token * attention.query_stride + head,
          attention.position + token + 1,
          attention.output + token * attention.output_stride + head
      };
    }
    AttendRows<S, Page, S::kQueryRows>(attention, rows, count);
  }
}

template <class S, class Tile, class Panel, class Page, class As>
constexpr Kernels MakeTable(Isa isa) {
  return {
      .isa = isa,
      .precision = As::kPrecision,
      .row_bytes = RowBytes<As>,
      .panel_bytes = PanelBytes<Panel>,
      .pack = Pack<Panel>,
      .multiply = Multiply<S, Tile>,
      .round = Round<S, As>,
      .rms_norm = RmsNorm<S, As>,
      .swiglu = Swiglu<S>,
      .page_bytes = PageBytes<Page>,
      .store = Page::Store,
      .attend = Attend<S, Page>,
      .exponentials = Exponentials<S>,
      .arg_max = ArgMax<S>,
  };
}

}  // namespace
}  // namespace millstream::kernels
