// SPDX-License-Identifier: Apache-2.0
#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/checked.h"

namespace millstream {
namespace {

using kernels::kPageTokens;
using kernels::kPanelRows;
using kernels::PaddedLength;

constexpr std::int64_t kAttentionRows = 96;  // query heads of tokens, of one piece of attention

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

/// Adds the time since it was made, or since the last call.
class Stopwatch {
 public:
  void Lap(std::chrono::nanoseconds& to) {
    const auto now = std::chrono::steady_clock::now();
    to += now - std::exchange(last_, now);
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::int64_t QkvLength(const ModelConfig& config) {
  return (config.heads + 2 * config.kv_heads) * config.head_dim;
}

}  // namespace

std::int64_t KvCache::PageBytes(const ModelConfig& config, const kernels::Kernels& kernels) {
  return config.layers * config.kv_heads * kernels.page_bytes(config.head_dim);
}

Result<KvCache> KvCache::Make(
    const ModelConfig& config, const kernels::Kernels& kernels, std::int64_t num_pages
) {
  KvCache cache;
  cache.num_pages_ = num_pages;
  cache.page_bytes_ = PageBytes(config, kernels);
  cache.head_bytes_ = kernels.page_bytes(config.head_dim);
  cache.kv_heads_ = config.kv_heads;
  const auto bytes = (CheckedSize(static_cast<std::uint64_t>(num_pages)) *
                      static_cast<std::uint64_t>(cache.page_bytes_))
                         .value();
  if (bytes) cache.memory_ = kernels::HugeBuffer(*bytes);
  if (cache.memory_.data() == nullptr) {
    return Status::OutOfMemory("not enough memory for a key-value cache of ", num_pages, " pages");
  }
  return cache;
}

Result<Workspace> Workspace::Make(const LlamaModel& model, std::int64_t max_rows) {
  const ModelConfig& config = model.config();
  const kernels::Kernels& kernels = model.kernels();
  const std::int64_t hidden = PaddedLength(config.hidden);
  const std::int64_t attended = PaddedLength(config.heads * config.head_dim);
  const std::int64_t feed_forward = PaddedLength(config.feed_forward);
  const std::int64_t sizes[] = {
      max_rows * hidden * 4,
      max_rows * kernels.row_bytes(hidden),
      max_rows * PaddedLength(QkvLength(config)) * 4,
      max_rows * attended * 4,
      max_rows * feed_forward * 4,
      config.post_norms ? max_rows * hidden * 4 : 0,
      max_rows * kernels.row_bytes(std::max(attended, feed_forward)),
      max_rows * kernels.row_bytes(hidden)
  };
  std::size_t total = 0;
  for (const std::int64_t size : sizes) total += Size(size);
  Workspace workspace;
  workspace.memory_ = kernels::HugeBuffer(total);
  std::byte* next = workspace.memory_.data();
  if (next == nullptr) return Status::OutOfMemory("not enough memory for a forward pass");
  workspace.hidden_ = reinterpret_cast<float*>(next);
  workspace.normed_ = next += sizes[0];
  workspace.qkv_ = reinterpret_cast<float*>(next += sizes[1]);
  workspace.attended_ = reinterpret_cast<float*>(next += sizes[2]);
  workspace.feed_forward_ = reinterpret_cast<float*>(next += sizes[3]);
  workspace.added_ = reinterpret_cast<float*>(next += sizes[4]);
  workspace.rounded_ = next += sizes[5];
  workspace.final_ = next += sizes[6];
  return workspace;
}

void LlamaModel::Plan(std::span<const Chunk> chunks, Workspace& w, const kernels::Team& team)
    const {
  w.rows_.clear();
  w.final_rows_.clear();
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    const Chunk& chunk = chunks[c];
    const auto count = static_cast<std::int64_t>(chunk.tokens.size());
    MS_CHECK(count > 0 && chunk.position + count <= context_);
    MS_CHECK(static_cast<std::int64_t>(chunk.pages.size()) * kPageTokens >= chunk.position + count);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t position = chunk.position + i;
      w.rows_.push_back({chunk.tokens[Size(i)], position, chunk.pages[Size(position / kPageTokens)]}
      );
      if (i >= count - chunk.num_logits) w.final_rows_.push_back(std::ssize(w.rows_) - 1);
    }
  }
  const std::int64_t kv_heads = config().kv_heads;
  const std::int64_t most = kAttentionRows * kv_heads / config().heads;
  const std::int64_t fair = std::ssize(w.rows_) * kv_heads / (8 * team.size());
  PlanAttention(chunks, std::max<std::int64_t>(1, std::min(most, fair)), w);
}

/// Tiles of up to `most` tokens: of one chunk, or of chunks of one token each, those together whose
/// sequences begin on the same pages. A page holds what it holds after the pages before it: so the
/// last page tells whether all are the same.
void LlamaModel::PlanAttention(std::span<const Chunk> chunks, std::int64_t most, Workspace& w) {
  w.seen_.clear();
  w.tiles_.clear();
  std::vector<Workspace::Seen> single;
  std::int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    const std::int64_t count = std::ssize(chunk.tokens);
    if (count == 1) single.push_back({row, chunk.position, chunk.pages.data()});
    for (std::int64_t i = 0; count > 1 && i < count; ++i) {
      const std::int64_t position = chunk.position + i;
      if (i % most == 0) w.tiles_.push_back({std::ssize(w.seen_), 0, 0});
      w.tiles_.back().count += 1;
      w.tiles_.back().shared = position + 1;
      w.seen_.push_back({row + i, position, chunk.pages.data()});
    }
    row += count;
  }
  constexpr std::int64_t kBlockPages = kernels::kAttentionBlock / kPageTokens;
  const auto whole_blocks = [](const Workspace::Seen& one) {
    return one.position / kernels::kAttentionBlock;
  };
  std::stable_sort(single.begin(), single.end(), [&](const auto& a, const auto& b) {
    return std::lexicographical_compare(
        a.pages,
        a.pages + whole_blocks(a) * kBlockPages,
        b.pages,
        b.pages + whole_blocks(b) * kBlockPages
    );
  });
  const auto shared = [&](const Workspace::Seen& a, const Workspace::Seen& b) {
    std::int64_t blocks = std::min(whole_blocks(a), whole_blocks(b));
    while (blocks > 0 && a.pages[blocks * kBlockPages - 1] != b.pages[blocks * kBlockPages - 1]) {
      --blocks;
    }
    return blocks * kernels::kAttentionBlock;
  };
  for (std::size_t i = 0; i < single.size(); ++i) {
    const std::int64_t common = i > 0 ? shared(single[i - 1], single[i]) : 0;
    Workspace::Tile* tile = i > 0 && w.tiles_.back().count < most ? &w.tiles_.back() : nullptr;
    if (i == 0 || tile == nullptr || (tile->count > 1 && tile->shared != common)) {
      tile = &w.tiles_.emplace_back(Workspace::Tile{std::ssize(w.seen_), 0, 0});
    } else {
      tile->shared = common;
    }
    tile->count += 1;
    w.seen_.push_back(single[i]);
  }
}

void LlamaModel::Embed(Workspace& w, kernels::Team& team) const {
  const std::int64_t hidden = config().hidden;
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  team.For(rows, team.Grain(rows), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = w.hidden_ + r * PaddedLength(hidden);
      ReadTensorRow(*embeddings_, w.rows_[Size(r)].token, row);
      if (config().embedding_scale == 1) continue;
      for (std::int64_t i = 0; i < hidden; ++i) row[i] *= config().embedding_scale;
    }
  });
}

void LlamaModel::Norm(Workspace& w, const float* weight, kernels::Team& team) const {
  const std::int64_t hidden = config().hidden;
  const std::int64_t stride = PaddedLength(hidden);
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  team.For(
      rows,
      std::max<std::int64_t>(4, team.Grain(rows)),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          std::byte* normed = w.normed_ + r * kernels_.row_bytes(hidden);
          kernels_.rms_norm(w.hidden_ + r * stride, weight, hidden, config().norm_epsilon, normed);
        }
      }
  );
}

void LlamaModel::Round(const float* values, std::int64_t length, Workspace& w, kernels::Team& team)
    const {
  const std::int64_t stride = PaddedLength(length);
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  team.For(
      rows,
      std::max<std::int64_t>(4, team.Grain(rows)),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          kernels_.round(values + r * stride, length, w.rounded_ + r * kernels_.row_bytes(length));
        }
      }
  );
}

void LlamaModel::Add(const Matrix& matrix, const float* norm, Workspace& w, kernels::Team& team)
    const {
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  if (norm == nullptr) return Multiply(kernels_, matrix, w.rounded_, rows, w.hidden_, true, team);
  Multiply(kernels_, matrix, w.rounded_, rows, w.added_, false, team);
  const std::int64_t hidden = config().hidden;
  team.For(
      rows,
      std::max<std::int64_t>(4, team.Grain(rows)),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          float* added = w.added_ + r * PaddedLength(hidden);
          float* sum = w.hidden_ + r * PaddedLength(hidden);
          kernels::NormInPlace(added, 1, hidden, norm, config().norm_epsilon);
          for (std::int64_t i = 0; i < hidden; ++i) sum[i] += added[i];
        }
      }
  );
}

void LlamaModel::GateUp(const Matrix& matrix, Workspace& w, kernels::Team& team) const {
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  const std::int64_t pairs = matrix.num_panels / 2;
  const std::int64_t stride = pairs * kPanelRows;
  const std::int64_t parts = RowParts(rows);
  const std::int64_t part_rows = RowsOfPart(rows, parts);
  const std::int64_t grain = rows >= 16 ? 1 : team.Grain(pairs, 6);
  const auto gate = config().gelu ? kernels_.geglu : kernels_.swiglu;
  team.For(pairs * parts, grain, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float outputs[2][kMostRows * kPanelRows];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t pair = i % pairs;
      const std::int64_t first = i / pairs * part_rows;
      const std::int64_t count = std::min(part_rows, rows - first);
      if (count <= 0) continue;
      for (std::int64_t half = 0; half < 2; ++half) {
        const std::int64_t panel = 2 * pair + half;
        kernels_.multiply(
            {.activations = w.normed_ + first * kernels_.row_bytes(matrix.columns),
             .rows = count,
             .panel = matrix.panels + panel * matrix.panel_bytes,
             .next_panel = NextPanel(matrix, i, 2, parts, team) + half * matrix.panel_bytes,
             .columns = matrix.columns,
             .kind = matrix.kind,
             .bias = matrix.bias != nullptr ? matrix.bias + panel * kPanelRows : nullptr,
             .output = outputs[half],
             .output_stride = kPanelRows,
             .accumulate = false}
        );
      }
      for (std::int64_t r = 0; r < count; ++r) {
        float* gated = w.feed_forward_ + (first + r) * stride + pair * kPanelRows;
        gate(outputs[0] + r * kPanelRows, outputs[1] + r * kPanelRows, kPanelRows, gated);
      }
    }
  });
}

void LlamaModel::RotateAndStore(
    std::int64_t layer, Workspace& w, KvCache& cache, kernels::Team& team
) const {
  const std::int64_t head_dim = config().head_dim;
  const std::int64_t heads = config().heads;
  const std::int64_t kv_heads = config().kv_heads;
  const std::int64_t stride = PaddedLength(QkvLength(config()));
  const float scale = config().query_scale.value_or(1 / std::sqrt(static_cast<float>(head_dim)));
  const Rope& rope = config().HasWindow(layer) ? window_rope_ : rope_;
  const float* query_norm = layers_[Size(layer)].query_norm;
  const float* key_norm = layers_[Size(layer)].key_norm;
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  team.For(
      rows,
      std::max<std::int64_t>(2, team.Grain(rows)),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const Workspace::Row& row = w.rows_[Size(r)];
          const float* cosines = rope.cosines.data() + row.position * head_dim / 2;
          const float* sines = rope.sines.data() + row.position * head_dim / 2;
          float* queries = w.qkv_ + r * stride;
          float* keys = queries + heads * head_dim;
          const float* values = keys + kv_heads * head_dim;
          if (config().head_norms) {
            const float epsilon = config().norm_epsilon;
            kernels::NormInPlace(queries, heads, head_dim, query_norm, epsilon);
            kernels::NormInPlace(keys, kv_heads, head_dim, key_norm, epsilon);
          }
          kernels::Rotate(queries, heads, head_dim, cosines, sines, scale);
          kernels::Rotate(keys, kv_heads, head_dim, cosines, sines, 1);
          for (std::int64_t h = 0; h < kv_heads; ++h) {
            std::byte* page = cache.Head(layer, h) + row.page * cache.page_bytes();
            kernels_.store(
                keys + h * head_dim,
                values + h * head_dim,
                head_dim,
                row.position % kPageTokens,
                page
            );
          }
        }
      }
  );
}

void LlamaModel::Attend(std::int64_t layer, Workspace& w, KvCache& cache, kernels::Team& team)
    const {
  const std::int64_t head_dim = config().head_dim;
  const std::int64_t group = config().heads / config().kv_heads;
  const std::int64_t stride = PaddedLength(QkvLength(config()));
  const std::int64_t output_stride = PaddedLength(config().heads * head_dim);
  const std::int64_t tiles = std::ssize(w.tiles_);
  // A head's tiles one after the other, as they may see the same pages.
  team.For(tiles * config().kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Workspace::Tile& tile = w.tiles_[Size(i % tiles)];
      const std::int64_t head = i / tiles;
      const std::int64_t column = head * group * head_dim;
      kernels::AttentionToken tokens[kAttentionRows];
      for (std::int64_t t = 0; t < tile.count; ++t) {
        const Workspace::Seen& seen = w.seen_[Size(tile.first + t)];
        tokens[t] = {
            .queries = w.qkv_ + seen.row * stride + column,
            .output = w.attended_ + seen.row * output_stride + column,
            .position = seen.position,
            .pages = seen.pages
        };
      }
      kernels_.attend(
          {.tokens = tokens,
           .num_tokens = tile.count,
           .group = group,
           .head_dim = head_dim,
           .cache = cache.Head(layer, head),
           .page_stride = cache.page_bytes(),
           .shared = tile.shared,
           .window = config().HasWindow(layer) ? config().window : 0}
      );
    }
  });
}

void LlamaModel::Forward(
    std::span<const Chunk> chunks, KvCache& cache, Workspace& w, kernels::Team& team
) const {
  Stopwatch watch;
  PassTimes& times = w.times_;
  Plan(chunks, w, team);
  const auto rows = static_cast<std::int64_t>(w.rows_.size());
  Embed(w, team);
  for (std::int64_t i = 0; i < config().layers; ++i) {
    const Layer& layer = layers_[Size(i)];
    Norm(w, layer.attention_norm, team);
    watch.Lap(times.rest);
    Multiply(kernels_, layer.qkv, w.normed_, rows, w.qkv_, false, team);
    watch.Lap(times.products);
    RotateAndStore(i, w, cache, team);
    watch.Lap(times.rest);
    Attend(i, w, cache, team);
    watch.Lap(times.attention);
    Round(w.attended_, config().heads * config().head_dim, w, team);
    watch.Lap(times.rest);
    Add(layer.output, layer.post_attention_norm, w, team);
    watch.Lap(times.products);
    Norm(w, layer.feed_forward_norm, team);
    watch.Lap(times.rest);
    GateUp(layer.gate_up, w, team);
    watch.Lap(times.products);
    Round(w.feed_forward_, config().feed_forward, w, team);
    watch.Lap(times.rest);
    Add(layer.down, layer.post_feed_forward_norm, w, team);
    watch.Lap(times.products);
  }
  const std::int64_t hidden = config().hidden;
  const std::int64_t stride = PaddedLength(hidden);
  for (std::size_t i = 0; i < w.final_rows_.size(); ++i) {
    std::byte* normed = w.final_ + static_cast<std::int64_t>(i) * kernels_.row_bytes(hidden);
    const float* row = w.hidden_ + w.final_rows_[i] * stride;
    kernels_.rms_norm(row, final_norm_, hidden, config().norm_epsilon, normed);
  }
  watch.Lap(times.rest);
}

void LlamaModel::Logits(
    Workspace& w, std::int64_t first, std::int64_t count, float* logits, kernels::Team& team
) const {
  Stopwatch watch;
  const std::byte* rows = w.final_ + first * kernels_.row_bytes(head_.columns);
  Multiply(kernels_, head_, rows, count, logits, false, team);
  watch.Lap(w.times_.head);
}

}  // namespace millstream
