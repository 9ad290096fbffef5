// SPDX-License-Identifier: Apache-2.0
// For tests: writes tiny models with random weights, the same one as a GGUF file and as a
// safetensors folder.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"

namespace millstream {

/// Puts a GGUF file together from keys and tensors.
class GgufBuilder {
 public:
  void Add(const std::string& key, std::uint32_t value);
  void Add(const std::string& key, float value);
  void Add(const std::string& key, bool value);
  void Add(const std::string& key, const std::string& value);
  void Add(const std::string& key, const char* value) { Add(key, std::string(value)); }
  void Add(const std::string& key, const std::vector<std::string>& values);
  void Add(const std::string& key, const std::vector<std::int32_t>& values);
  /// Shape as in TensorView; `bytes` as the type lays them.
  void AddTensor(
      const std::string& name, TensorType type, std::vector<std::int64_t> shape, std::string bytes
  );

  /// The file's bytes, and how many of them are header.
  std::pair<std::string, std::size_t> Build() const;

 private:
  struct Tensor {
    std::string name;
    TensorType type;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };

  void AddHead(const std::string& key, std::uint32_t type);

  std::uint64_t num_keys_ = 0;
  std::string metadata_;
  std::vector<Tensor> tensors_;
};

/// The sizes of a tiny model. Its tokens are <|endoftext|>, <|im_start|>, <|im_end|>, the 256 bytes
/// and a few merges; fewer if `byte_tokens` is false, for tests that walk through every byte of a
/// header.
struct TinyModel {
  std::string architecture = "llama";  // or another of architecture.h
  std::int64_t layers = 2;
  std::int64_t hidden = 32;
  std::int64_t feed_forward = 64;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t context = 128;
  std::int64_t window = 24;  // of gemma3
  bool tied_embeddings = true;
  bool byte_tokens = true;
  std::uint64_t seed = 1;
  // Of matrices in GGUF. Blocks need widths that they fit into: 256 for the K types.
  TensorType type = TensorType::kF32;
  std::optional<TensorType> other_type = std::nullopt;  // of attn_v and ffn_down, if not the same

  std::int64_t head_dim() const { return hidden / heads * (HasHeadNorms() ? 2 : 1); }
  bool HasHeadNorms() const { return architecture == "qwen3" || IsGemma(); }
  bool IsGemma() const { return architecture == "gemma3"; }
  std::vector<std::string> Tokens() const;
  std::vector<std::string> Merges() const;
};

/// The model as GGUF (rows of llama's queries and keys in the order that GGUF asks for).
GgufBuilder TinyGguf(const TinyModel& model);
/// Writes config.json, generation_config.json, the tokenizer's files and `shards` safetensors
/// files. Its weights are F32, of the same values as in GGUF.
Status WriteTinyFolder(const TinyModel& model, const std::string& folder, int shards = 1);

Status WriteFile(const std::string& path, const std::string& bytes);

/// One safetensors file. `type`: F32, F16, BF16.
struct SafetensorsTensor {
  std::string name;
  std::string type;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
std::string SafetensorsFile(const std::vector<SafetensorsTensor>& tensors);

}  // namespace millstream
