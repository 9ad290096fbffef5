// SPDX-License-Identifier: Apache-2.0
// Attention over a paged cache for simd.h.
//
// All rows of a call, a row being one query head of one token, go through the cache together, a
// block of positions after the other: while a block's keys and values are in the first cache, each
// row takes what it needs of them. Sums and running maxima are carried from block to block as in
// FlashAttention; a row's arithmetic does not depend on the rows beside it.

#pragma once

#include "kernels/simd_pages.h"

namespace millstream::kernels {
namespace {

constexpr float kMasked = -1e30F;  // a score that attention must not see
constexpr std::int64_t kBlockPages = kAttentionBlock / kPageTokens;
constexpr std::int64_t kRowsTogether = 96;

template <class Page>
struct AttentionRow {
  const typename Page::Pair* query;  // [head_dim / 2]
  std::int64_t begin, end;           // positions that it sees
  float* sums;                       // [padded], of values by weights
  float largest, total;              // of the scores; of the weights
  float* output;
};

/// What a block of positions adds to kRows rows.
template <class S, class Page, int kRows>
struct AttentionTile {
  using F = typename S::F;
  using Pair = typename Page::Pair;
  using Words = typename Page::Words;
  static constexpr int kPageVectors = static_cast<int>(kPageTokens) / S::kWidth;
  /// Pages whose scores are computed at once: as many as there are registers for.
  static constexpr int kPages = kRows * kPageVectors * 8 <= S::kAttentionSums   ? 8
                                : kRows * kPageVectors * 4 <= S::kAttentionSums ? 4
                                                                                : 2;

  AttentionRow<Page>* rows;
  std::int64_t head_dim, padded;
  const std::byte* pages[kBlockPages];  // those after the last are the last
  const std::byte* next[kBlockPages];   // to fetch place by place meanwhile; null: none
  float scores[kRows][kAttentionBlock];
  Pair weights[kRows][kAttentionBlock / 2];
  float corrections[kRows];

  template <bool kFetch>
  [[gnu::noinline]] void Score(std::int64_t slot) {
    F dots[kPages][kRows][kPageVectors];
    const std::byte* const* keys = pages + slot;
#pragma GCC unroll 8
    for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) dots[p][r][v] = S::Zero();
      }
    }
    for (std::int64_t d = 0; d < head_dim / 2; ++d) {
#pragma GCC unroll 8
      for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) {
          const Words words = Page::LoadKeys(keys[p], d, v);
          if constexpr (kFetch) Page::FetchKeys(next[slot + p], d, v);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) Page::Add(dots[p][r][v], rows[r].query[d], words);
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < kPageVectors; ++v) {
          S::Store(scores[r] + (slot + p) * kPageTokens + v * S::kWidth, dots[p][r][v]);
        }
      }
    }
  }

  /// Turns the scores of a block into weights, and carries the row's maximum and total on.
  void Soften(int r, std::int64_t block, std::int64_t tokens) {
    float* score = scores[r];
    AttentionRow<Page>& row = rows[r];
    const std::int64_t begin = Smaller(row.begin > block ? row.begin - block : 0, tokens);
    for (std::int64_t t = 0; t < begin; ++t) score[t] = kMasked;
    for (std::int64_t t = row.end > block ? row.end - block : 0; t < tokens; ++t) {
      score[t] = kMasked;
    }
    F most = S::Set(row.largest);
    for (std::int64_t t = 0; t < tokens; t += S::kWidth) most = S::Max(most, S::Load(score + t));
    const float now = S::Largest(most);
    corrections[r] = S::First(Exp<S>(S::Set(row.largest - now)));
    row.largest = now;
    const F shift = S::Set(now);
    F total = S::Zero();
    for (std::int64_t t = 0; t < tokens; t += S::kWidth) {
      total = S::Add(total, Page::Put(weights[r], t, Exp<S>(S::Sub(S::Load(score + t), shift))));
    }
    row.total = row.total * corrections[r] + S::Sum(total);
  }

  /// Adds the weighted values of `tokens` tokens, kVectors vectors of dimensions from d.
  template <int kVectors, bool kFetch>
  [[gnu::noinline]] void AddValues(std::int64_t tokens, std::int64_t d) {
    F sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F correction = S::Set(corrections[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = S::Mul(correction, S::Load(rows[r].sums + d + v * S::kWidth));
      }
    }
    const std::int64_t keys_bytes = padded * kPageTokens * Page::kBytes;
    const std::int64_t pairs = tokens / 2;
    for (std::int64_t first = 0; first < pairs; first += kPageTokens / 2) {
      const std::int64_t page = first / (kPageTokens / 2);
      const std::byte* values = pages[page] + keys_bytes;
      const std::byte* next_values = kFetch ? next[page] + keys_bytes : nullptr;
      const std::int64_t count = Smaller(pairs - first, kPageTokens / 2);
      for (std::int64_t t = 0; t < count; ++t) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const Words words = Page::LoadValues(values, t, d + v * S::kWidth, padded);
          if constexpr (kFetch) Page::FetchValues(next_values, t, d + v * S::kWidth, padded);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) Page::Add(sum[r][v], weights[r][first + t], words);
        }
      }
    }
    if (tokens % 2 != 0) {
      // What stands in the cache after the last token may be no number, of which no weight of 0
      // makes 0.
      const std::byte* values = pages[tokens / kPageTokens] + keys_bytes;
      const std::int64_t t = tokens % kPageTokens / 2;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const Words words =
            Page::WithoutSecond(Page::LoadValues(values, t, d + v * S::kWidth, padded));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) Page::Add(sum[r][v], weights[r][pairs], words);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) S::Store(rows[r].sums + d + v * S::kWidth, sum[r][v]);
    }
  }

  /// Positions [block, end) of the cache.
  void Add(std::int64_t block, std::int64_t end) {
    const std::int64_t tokens = end - block;
    const std::int64_t num_pages = (tokens + kPageTokens - 1) / kPageTokens;
    for (std::int64_t p = 0; p < num_pages; p += kPages) {
      if (next[0] != nullptr) {
        Score<true>(p);
      } else {
        Score<false>(p);
      }
    }
    for (int r = 0; r < kRows; ++r) Soften(r, block, num_pages * kPageTokens);
    if (next[0] != nullptr) {
      AddAllValues<true>(tokens);
    } else {
      AddAllValues<false>(tokens);
    }
  }

  template <bool kFetch>
  void AddAllValues(std::int64_t tokens) {
    std::int64_t d = 0;
    for (; d + 4 * S::kWidth <= padded; d += 4 * S::kWidth) AddValues<4, kFetch>(tokens, d);
    for (; d < padded; d += 32) AddValues<32 / S::kWidth, kFetch>(tokens, d);
  }
};

/// A call's rows, up to kRowsTogether of them at once.
template <class S, class Page>
class AttentionRows {
 public:
  explicit AttentionRows(const Attention& attention)
      : a_(attention), padded_(PaddedLength(attention.head_dim)) {}

  void Run() {
    const std::int64_t num_rows = a_.num_tokens * a_.group;
    for (first_ = 0; first_ < num_rows; first_ += count_) {
      count_ = Smaller(num_rows - first_, kRowsTogether);
      Begin();
      for (std::int64_t block = 0; block < a_.shared; block += kAttentionBlock) {
        AddBlock(0, count_, block, TokenOf(0).pages);
      }
      for (std::int64_t row = 0; row < count_;) {
        const AttentionToken& token = TokenOf(row);
        const std::int64_t end = Smaller(count_, row + a_.group - (first_ + row) % a_.group);
        for (std::int64_t block = unshared(); block <= token.position; block += kAttentionBlock) {
          AddBlock(row, end, block, token.pages);
        }
        row = end;
      }
      Finish();
    }
  }

 private:
  const AttentionToken& TokenOf(std::int64_t row) const {
    return a_.tokens[(first_ + row) / a_.group];
  }
  /// The first block that each token has for itself.
  std::int64_t unshared() const {
    return (a_.shared + kAttentionBlock - 1) / kAttentionBlock * kAttentionBlock;
  }

  void Begin() {
    for (std::int64_t i = 0; i < count_; ++i) {
      const AttentionToken& token = TokenOf(i);
      const std::int64_t head = (first_ + i) % a_.group * a_.head_dim;
      typename Page::Pair* query = queries_ + i * padded_ / 2;
      float* sums = sums_ + i * padded_;
      PutQuery(token.queries + head, query);
      for (std::int64_t d = 0; d < padded_; d += S::kWidth) S::Store(sums + d, S::Zero());
      AttentionRow<Page>& row = rows_[i];
      row.query = query;
      row.end = token.position + 1;
      row.begin = a_.window > 0 && row.end > a_.window ? row.end - a_.window : 0;
      row.sums = sums;
      row.largest = kMasked;
      row.total = 0;
      row.output = token.output + head;
    }
  }

  void PutQuery(const float* values, typename Page::Pair* query) {
    alignas(64) float tail[S::kWidth] = {};
    const std::int64_t whole = a_.head_dim / S::kWidth * S::kWidth;
    for (std::int64_t d = whole; d < a_.head_dim; ++d) tail[d - whole] = values[d];
    for (std::int64_t d = 0; d < whole; d += S::kWidth) Page::Put(query, d, S::Load(values + d));
    if (whole < a_.head_dim) Page::Put(query, whole, S::Load(tail));
  }

  /// Rows [first, end), which all see `pages`, in tiles of about equal numbers.
  void AddBlock(
      std::int64_t first, std::int64_t end, std::int64_t block, const std::int32_t* pages
  ) {
    const std::int64_t tiles = (end - first + S::kQueryRows - 1) / S::kQueryRows;
    bool is_fetched = false;
    for (std::int64_t t = 0, row = first; t < tiles; ++t) {
      const std::int64_t count = (end - row + tiles - t - 1) / (tiles - t);
      is_fetched = AddTile<S::kQueryRows>(row, count, block, pages, is_fetched);
      row += count;
    }
  }

  template <int kRows>
  bool AddTile(
      std::int64_t row,
      std::int64_t count,
      std::int64_t block,
      const std::int32_t* pages,
      bool is_fetched
  ) {
    if constexpr (kRows > 0) {
      if (count != kRows) return AddTile<kRows - 1>(row, count, block, pages, is_fetched);
      AttentionTile<S, Page, kRows> tile;
      tile.rows = rows_ + row;
      std::int64_t begin = tile.rows[0].begin, end = 0;
      for (int r = 0; r < kRows; ++r) {
        begin = Smaller(begin, tile.rows[r].begin);
        end = end > tile.rows[r].end ? end : tile.rows[r].end;
      }
      end = Smaller(end, block + kAttentionBlock);
      if (end <= block || begin >= block + kAttentionBlock) return is_fetched;
      tile.head_dim = a_.head_dim;
      tile.padded = padded_;
      SetPages(pages, block, end, tile.pages);
      tile.next[0] = nullptr;
      if (!is_fetched) SetNextPages(row, block, pages, tile.next);
      tile.Add(block, end);
      return true;
    }
    return is_fetched;
  }

  void SetPages(
      const std::int32_t* pages, std::int64_t block, std::int64_t end, const std::byte** to
  ) const {
    for (std::int64_t p = 0; p < kBlockPages; ++p) {
      const std::int64_t position = Smaller(block + p * kPageTokens, end - 1);
      to[p] = a_.cache + pages[position / kPageTokens] * a_.page_stride;
    }
  }

  /// Those of the row's next block, or of the next token's first one.
  void SetNextPages(
      std::int64_t row, std::int64_t block, const std::int32_t* pages, const std::byte** to
  ) const {
    const std::int64_t after = block + kAttentionBlock;
    if (after < a_.shared) return SetPages(pages, after, a_.shared, to);
    const AttentionToken* token = &TokenOf(row);
    if (block >= a_.shared && after <= token->position) {
      return SetPages(pages, after, token->position + 1, to);
    }
    if (block >= a_.shared && ++token == a_.tokens + a_.num_tokens) return;
    if (unshared() <= token->position) {
      SetPages(token->pages, unshared(), token->position + 1, to);
    }
  }

  void Finish() {
    for (std::int64_t i = 0; i < count_; ++i) {
      const AttentionRow<Page>& row = rows_[i];
      const F total = S::Set(row.total);
      std::int64_t d = 0;
      for (; d + S::kWidth <= a_.head_dim; d += S::kWidth) {
        S::Store(row.output + d, S::Div(S::Load(row.sums + d), total));
      }
      for (; d < a_.head_dim; ++d) row.output[d] = row.sums[d] / row.total;
    }
  }

  using F = typename S::F;

  const Attention& a_;
  const std::int64_t padded_;
  std::int64_t first_ = 0, count_ = 0;  // the rows of this time
  AttentionRow<Page> rows_[kRowsTogether];
  alignas(64) typename Page::Pair queries_[kRowsTogether * kMaxHeadDim / 2];
  alignas(64) float sums_[kRowsTogether * kMaxHeadDim];
};

template <class S, class Page>
void Attend(const Attention& attention) {
  AttentionRows<S, Page>(attention).Run();
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
      .geglu = Geglu<S>,
      .page_bytes = PageBytes<Page>,
      .store = Page::Store,
      .attend = Attend<S, Page>,
      .exponentials = Exponentials<S>,
      .arg_max = ArgMax<S>,
  };
}

}  // namespace
}  // namespace millstream::kernels
