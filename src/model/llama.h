// SPDX-License-Identifier: Apache-2.0
// Llama and what is built like it (architecture.h): weights rearranged for the kernels, and the
// forward pass.
//
// The model is immutable; the state of a pass lies in the cache and the workspace. Batch-invariant:
// what a token computes depends on the tokens before it alone (kernels/kernels.h says how).

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/huge_buffer.h"
#include "kernels/kernels.h"
#include "kernels/team.h"
#include "model/checkpoint.h"
#include "model/product.h"

namespace millstream {

/// Memory for keys and values, in pages of kernels::kPageTokens tokens. Which sequence owns a page
/// is the caller's affair. A page never used costs no memory.
class KvCache {
 public:
  static Result<KvCache> Make(
      const ModelConfig& config, const kernels::Kernels& kernels, std::int64_t num_pages
  );
  static std::int64_t PageBytes(const ModelConfig& config, const kernels::Kernels& kernels);

  std::int64_t num_pages() const { return num_pages_; }
  std::int64_t page_bytes() const { return page_bytes_; }
  /// Page 0 of one head; page p lies page_bytes() * p further.
  std::byte* Head(std::int64_t layer, std::int64_t kv_head) {
    return memory_.data() + (layer * kv_heads_ + kv_head) * head_bytes_;
  }

 private:
  KvCache() = default;

  kernels::HugeBuffer memory_;  // [page][layer][kv_head] of head pages
  std::int64_t num_pages_ = 0;
  std::int64_t page_bytes_ = 0;
  std::int64_t head_bytes_ = 0;
  std::int64_t kv_heads_ = 0;
};

/// Consecutive tokens of one sequence. Those before `position` are in the cache already.
struct Chunk {
  std::span<const std::int32_t> tokens;  // each within the vocabulary
  std::int64_t position = 0;             // of the first
  std::span<const std::int32_t> pages;   // the sequence's, enough for all its tokens so far
  std::int64_t num_logits = 0;           // of how many of the last tokens logits are wanted
};

/// Dequantises one row of a matrix, or a whole vector as row 0.
void ReadTensorRow(const TensorView& tensor, std::int64_t row, float* values);

class LlamaModel;

/// Where the time of passes went.
struct PassTimes {
  std::chrono::nanoseconds products{}, attention{}, head{}, rest{};
};

/// Buffers of a forward pass, for up to `max_rows` tokens at once.
class Workspace {
 public:
  static Result<Workspace> Make(const LlamaModel& model, std::int64_t max_rows);
  /// Of all passes so far.
  const PassTimes& times() const { return times_; }

 private:
  friend class LlamaModel;
  Workspace() = default;

  kernels::HugeBuffer memory_;
  float* hidden_ = nullptr;        // [rows][hidden]
  std::byte* normed_ = nullptr;    // [rows][hidden] activations
  float* qkv_ = nullptr;           // [rows][heads + 2 kv_heads][head_dim]
  float* attended_ = nullptr;      // [rows][heads][head_dim]
  float* feed_forward_ = nullptr;  // [rows][feed_forward]
  float* added_ = nullptr;         // [rows][hidden], where what is added has a norm
  std::byte* rounded_ = nullptr;   // [rows] activations, of one of these two
  std::byte* final_ = nullptr;     // [rows][hidden] activations, of those whose logits are wanted

  struct Row {
    std::int32_t token;
    std::int64_t position;
    std::int32_t page;
  };
  struct Seen {  // a token and where it finds what it sees
    std::int64_t row, position;
    const std::int32_t* pages;
  };
  struct Tile {                 // tokens whose attention is one piece of work
    std::int64_t first, count;  // of seen_
    std::int64_t shared;        // as in kernels::Attention
  };
  std::vector<Row> rows_;
  std::vector<Seen> seen_;  // as tiles_ have them
  std::vector<Tile> tiles_;
  std::vector<std::int64_t> final_rows_;
  PassTimes times_;
};

class LlamaModel {
 public:
  /// Dequantises and packs the weights. `context`: how many positions can be computed. The
  /// checkpoint stays open: embeddings are read from it.
  static Result<std::shared_ptr<const LlamaModel>> Load(
      std::shared_ptr<const Checkpoint> checkpoint,
      const kernels::Kernels& kernels,
      std::int64_t context,
      kernels::Team& team
  );

  const ModelConfig& config() const { return checkpoint_->config(); }
  const kernels::Kernels& kernels() const { return kernels_; }
  std::int64_t context() const { return context_; }

  /// Computes the chunks' tokens and stores their keys and values. At most one chunk a sequence.
  void Forward(
      std::span<const Chunk> chunks, KvCache& cache, Workspace& workspace, kernels::Team& team
  ) const;

  /// Logits of wanted rows [first, first + count) of the last Forward(), in the order of its
  /// chunks, to [count][logit_stride()].
  void Logits(
      Workspace& workspace,
      std::int64_t first,
      std::int64_t count,
      float* logits,
      kernels::Team& team
  ) const;
  std::int64_t logit_stride() const { return kernels::PaddedLength(config().vocabulary); }

 private:
  friend class Workspace;
  friend class LlamaLoader;

  using Matrix = PackedMatrix;
  struct Layer {
    const float* attention_norm = nullptr;
    const float* feed_forward_norm = nullptr;
    const float* query_norm = nullptr;  // null: none
    const float* key_norm = nullptr;
    const float* post_attention_norm = nullptr;  // null: none
    const float* post_feed_forward_norm = nullptr;
    Matrix qkv;
    Matrix output;
    Matrix gate_up;  // panels of the two in turn
    Matrix down;
  };

  LlamaModel(std::shared_ptr<const Checkpoint> checkpoint, const kernels::Kernels& kernels);

  void Plan(std::span<const Chunk> chunks, Workspace& workspace, const kernels::Team& team) const;
  static void PlanAttention(std::span<const Chunk> chunks, std::int64_t most, Workspace& workspace);
  void Embed(Workspace& w, kernels::Team& team) const;
  void Norm(Workspace& w, const float* weight, kernels::Team& team) const;
  /// hidden += matrix * w.rounded_, through a norm if there is one.
  void Add(const Matrix& matrix, const float* norm, Workspace& w, kernels::Team& team) const;
  /// Rounds rows of values, which stand PaddedLength(length) apart, to w.rounded_.
  void Round(const float* values, std::int64_t length, Workspace& w, kernels::Team& team) const;
  void GateUp(const Matrix& matrix, Workspace& w, kernels::Team& team) const;
  void RotateAndStore(std::int64_t layer, Workspace& w, KvCache& cache, kernels::Team& team) const;
  void Attend(std::int64_t layer, Workspace& w, KvCache& cache, kernels::Team& team) const;

  const std::shared_ptr<const Checkpoint> checkpoint_;
  const kernels::Kernels& kernels_;
  std::int64_t context_ = 0;
  kernels::HugeBuffer weights_;
  std::vector<Layer> layers_;
  Matrix head_;
  const float* final_norm_ = nullptr;
  const TensorView* embeddings_ = nullptr;

  struct Rope {
    std::vector<float> cosines;  // [context][head_dim / 2]
    std::vector<float> sines;
  };
  Rope rope_;
  Rope window_rope_;  // of layers with a window
};

/// The angle that each pair of dimensions turns by from one position to the next, and what its sine
/// and cosine are multiplied by.
struct RopeFrequencies {
  std::vector<double> turns;  // [head_dim / 2]
  double magnitude = 1;
};
/// `factors`: divisors of the frequencies (rope_freqs.weight), or empty.
RopeFrequencies MakeRopeFrequencies(const ModelConfig& config, std::span<const float> factors);

}  // namespace millstream
