// SPDX-License-Identifier: Apache-2.0
// The files of a model, opened: its configuration, its tensors where they lie in mapped memory, and
// what the tokenizer and chat template are made of. Knows GGUF files and safetensors folders;
// trusts neither's headers.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millstream {

enum class TensorType { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };
std::string_view TensorTypeName(TensorType type);
/// Whether values share scales.
bool IsQuantized(TensorType type);

/// A weight as it lies in the mapped file. `shape` is row-major: {rows, columns} for a matrix whose
/// rows are output features, {n} for a vector. Valid as long as its Checkpoint.
struct TensorView {
  TensorType type = TensorType::kF32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::size_t size_bytes = 0;
};

/// RoPE scaling as configurations state it.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kYarn } kind = Kind::kNone;
  float factor = 1;
  std::int64_t original_context = 0;  // llama3 and yarn
  float low_freq_factor = 1;          // llama3
  float high_freq_factor = 4;
  // yarn: dimensions that turn more than beta_fast times within the original context keep their
  // frequency, those that turn less than beta_slow times have it divided by factor, a ramp between
  // (its ends rounded outwards to whole dimensions); sine and cosine are multiplied by
  // attention_factor.
  float beta_fast = 32;
  float beta_slow = 1;
  float attention_factor = 1;
};

/// What the forward pass needs to know of a model.
struct ModelConfig {
  std::string architecture;  // as GGUF names it: "llama", "qwen2" (architecture.h)
  std::int64_t context = 0;  // tokens
  std::int64_t vocabulary = 0;
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t feed_forward = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  float norm_epsilon = 1e-5F;
  float rope_theta = 10000;
  bool rope_interleaved =
      false;  // GGUF llama: rotated pairs are neighbours (2i, 2i+1), not halves (i, i + head_dim/2)
  RopeScaling rope_scaling;
  bool tied_embeddings = false;
  bool qkv_bias = false;  // which biases must be there; others may
  bool output_bias = false;
  bool mlp_bias = false;

  // What llama has not.
  bool head_norms = false;  // on each head's queries and keys: attn_q_norm, attn_k_norm
  bool post_norms = false;  // on what each part of a layer adds: post_attention_norm, post_ffw_norm
  float norm_offset = 0;    // to be added to the norms' weights as the file has them
  bool gelu = false;        // in place of silu
  float embedding_scale = 1;
  std::optional<float> query_scale;  // in place of 1 / sqrt(head_dim)
  // In all layers but each window_pattern-th, a token sees `window` positions back, itself
  // included, and RoPE has a base of its own and no scaling. 0: no such layers.
  std::int64_t window = 0;
  std::int64_t window_pattern = 1;
  float window_rope_theta = 10000;

  bool HasWindow(std::int64_t layer) const {
    return window > 0 && (layer + 1) % window_pattern != 0;
  }
};

/// A model's own wishes: generation_config.json.
struct GenerationDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k, max_tokens;
  std::string source;  // "generation_config.json", or empty
};

/// The GGUF vocabulary, owned (see text/tokenizer.h for the meaning of each); empty for safetensors
/// folders.
struct CheckpointVocabulary {
  std::string model, pre;
  std::vector<std::string_view> tokens;
  std::vector<std::int32_t> token_types;
  std::vector<float> scores;
  std::vector<std::string_view> merges;
  std::optional<std::int32_t> bos_token, eos_token, unknown_token;
  bool add_bos = false, add_eos = false, add_space_prefix = true;
};

/// An open model. Immutable; thread-safe.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  /// Opens a GGUF file or a safetensors folder. Everything in a header is checked
  /// (security.md 4.2); a Status says what is wrong and what is supported.
  static Result<std::shared_ptr<const Checkpoint>> Open(const std::string& path);

  /// Opens only what the tokenizer and the chat template of a folder are made of: it may lack
  /// weights, and be of any architecture. Of a GGUF file, all.
  static Result<std::shared_ptr<const Checkpoint>> OpenTokenizer(const std::string& path);

  virtual const ModelConfig& config() const = 0;
  /// The tensor, by its name in the GGUF naming ("blk.0.attn_q.weight"; safetensors names are
  /// translated), or null.
  virtual const TensorView* Find(std::string_view name) const = 0;

  // What the tokenizer and the templates are made of.
  std::string tokenizer_json;  // safetensors folders
  CheckpointVocabulary vocabulary;
  std::string chat_template;              // empty: none
  std::string bos_token, eos_token;       // texts, may be empty
  std::vector<std::int32_t> stop_tokens;  // end-of-text and end-of-turn ids
  GenerationDefaults defaults;
  std::string path;
  std::uint64_t size_bytes = 0;
  /// xxh3 of the headers and of a sample of the weights: tells two models apart.
  std::uint64_t hash = 0;
};

}  // namespace millstream
