// SPDX-License-Identifier: Apache-2.0
#include "model/tensor_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/checked.h"

namespace millstream {
namespace {

/// Values of one block along a row, and the bytes that it takes.
struct BlockLayout {
  std::uint64_t values;
  std::uint64_t bytes;
};

BlockLayout LayoutOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return {1, 4};
    case TensorType::kF16:
    case TensorType::kBF16:
      return {1, 2};
    case TensorType::kQ8_0:
      return {32, 34};
    case TensorType::kQ4_0:
      return {32, 18};
    case TensorType::kQ4_1:
      return {32, 20};
    case TensorType::kQ5_0:
      return {32, 22};
    case TensorType::kQ5_1:
      return {32, 24};
    case TensorType::kQ4_K:
      return {256, 144};
    case TensorType::kQ5_K:
      return {256, 176};
    case TensorType::kQ6_K:
      return {256, 210};
  }
  return {1, 4};
}

Status CheckTensor(
    const TensorTable& tensors,
    const std::string& name,
    std::vector<std::int64_t> shape,
    bool required
) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    return required ? Status::Invalid("tensor ", Quoted(name), " is missing") : Status::OK();
  }
  if (found->second.shape != shape) {
    return Status::Invalid(
        "tensor ",
        Quoted(name),
        " has shape ",
        ShapeText(found->second.shape),
        ", but the configuration asks for ",
        ShapeText(shape)
    );
  }
  const bool vector_type = found->second.type == TensorType::kF32 ||
                           found->second.type == TensorType::kF16 ||
                           found->second.type == TensorType::kBF16;
  if (shape.size() == 1 && !vector_type) {
    return Status::NotImplemented(
        "tensor ",
        Quoted(name),
        " has type ",
        TensorTypeName(found->second.type),
        "; supported for norms and biases: F32, F16, BF16"
    );
  }
  return Status::OK();
}

Status CheckLayer(const ModelConfig& config, const TensorTable& tensors, const std::string& layer) {
  const std::int64_t q = config.heads * config.head_dim;
  const std::int64_t kv = config.kv_heads * config.head_dim;
  struct Matrix {
    const char* name;
    std::int64_t rows, columns;
    bool needs_bias;
  };
  const std::array<Matrix, 7> matrices = {{
      {"attn_q", q, config.hidden, config.qkv_bias},
      {"attn_k", kv, config.hidden, config.qkv_bias},
      {"attn_v", kv, config.hidden, config.qkv_bias},
      {"attn_output", config.hidden, q, config.output_bias},
      {"ffn_gate", config.feed_forward, config.hidden, config.mlp_bias},
      {"ffn_up", config.feed_forward, config.hidden, config.mlp_bias},
      {"ffn_down", config.hidden, config.feed_forward, config.mlp_bias},
  }};
  MS_RETURN_NOT_OK(CheckTensor(tensors, layer + "attn_norm.weight", {config.hidden}, true));
  MS_RETURN_NOT_OK(CheckTensor(tensors, layer + "ffn_norm.weight", {config.hidden}, true));
  if (config.head_norms) {
    MS_RETURN_NOT_OK(CheckTensor(tensors, layer + "attn_q_norm.weight", {config.head_dim}, true));
    MS_RETURN_NOT_OK(CheckTensor(tensors, layer + "attn_k_norm.weight", {config.head_dim}, true));
  }
  if (config.post_norms) {
    for (const char* name : {"post_attention_norm.weight", "post_ffw_norm.weight"}) {
      MS_RETURN_NOT_OK(CheckTensor(tensors, layer + name, {config.hidden}, true));
    }
  }
  for (const Matrix& matrix : matrices) {
    const std::string name = layer + matrix.name;
    MS_RETURN_NOT_OK(CheckTensor(tensors, name + ".weight", {matrix.rows, matrix.columns}, true));
    MS_RETURN_NOT_OK(CheckTensor(tensors, name + ".bias", {matrix.rows}, matrix.needs_bias));
  }
  return Status::OK();
}

Status CheckScaling(const RopeScaling& scaling) {
  using Kind = RopeScaling::Kind;
  const auto positive = [](float value) { return value > 0 && std::isfinite(value); };
  if (scaling.kind == Kind::kNone) return Status::OK();
  if (!positive(scaling.factor)) return Status::Invalid("RoPE's factor is not a positive number");
  if (scaling.kind == Kind::kLinear) return Status::OK();
  if (scaling.original_context < 1) {
    return Status::Invalid("RoPE's original context is not positive");
  }
  const bool llama3 = scaling.kind == Kind::kLlama3;
  const float low = llama3 ? scaling.low_freq_factor : scaling.beta_slow;
  const float high = llama3 ? scaling.high_freq_factor : scaling.beta_fast;
  if (!positive(low) || !positive(high) || low >= high || !positive(scaling.attention_factor)) {
    return Status::Invalid("the numbers of RoPE's scaling are not positive, or out of order");
  }
  return Status::OK();
}

Status CheckRange(const char* name, std::int64_t value, std::int64_t max) {
  if (value >= 1 && value <= max) return Status::OK();
  return Status::Invalid(name, " is ", value, ", not within 1 and ", max);
}

}  // namespace

bool IsQuantized(TensorType type) {
  return type != TensorType::kF32 && type != TensorType::kF16 && type != TensorType::kBF16;
}

std::string_view TensorTypeName(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return "F32";
    case TensorType::kF16:
      return "F16";
    case TensorType::kBF16:
      return "BF16";
    case TensorType::kQ8_0:
      return "Q8_0";
    case TensorType::kQ4_0:
      return "Q4_0";
    case TensorType::kQ4_1:
      return "Q4_1";
    case TensorType::kQ5_0:
      return "Q5_0";
    case TensorType::kQ5_1:
      return "Q5_1";
    case TensorType::kQ4_K:
      return "Q4_K";
    case TensorType::kQ5_K:
      return "Q5_K";
    case TensorType::kQ6_K:
      return "Q6_K";
  }
  return "?";
}

std::optional<std::uint64_t> TensorBytes(TensorType type, std::span<const std::int64_t> shape) {
  const BlockLayout layout = LayoutOf(type);
  CheckedSize values(1);
  for (const std::int64_t dimension : shape) {
    if (dimension < 1) return std::nullopt;
    values = values * static_cast<std::uint64_t>(dimension);
  }
  const std::uint64_t row = shape.empty() ? 1 : static_cast<std::uint64_t>(shape.back());
  const auto count = values.value();
  if (!count || row % layout.values != 0) return std::nullopt;
  return (CheckedSize(*count / layout.values) * layout.bytes).value();
}

Status CheckEntries(
    std::vector<TensorEntry>& entries, std::uint64_t data_begin, std::uint64_t file_size
) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const TensorEntry& entry : entries) {
    names.emplace_back(entry.name);
    if (entry.begin < data_begin || !(CheckedSize(entry.begin) + entry.size).Fits(file_size)) {
      return Status::Invalid(
          "tensor ",
          Quoted(entry.name),
          " lies outside of the file: the file is truncated or damaged"
      );
    }
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) return Status::Invalid("tensor ", Quoted(*twin), " appears twice");

  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.size) < std::pair(b.begin, b.size);
  });
  for (std::size_t i = 1; i < entries.size(); ++i) {
    if (entries[i - 1].begin + entries[i - 1].size > entries[i].begin) {
      return Status::Invalid(
          "tensors ", Quoted(entries[i - 1].name), " and ", Quoted(entries[i].name), " overlap"
      );
    }
  }
  return Status::OK();
}

Status CheckConfig(const ModelConfig& config) {
  constexpr std::int64_t kWidthMax = std::int64_t{1} << 24;
  MS_RETURN_NOT_OK(CheckRange("the context length", config.context, std::int64_t{1} << 30));
  MS_RETURN_NOT_OK(CheckRange("the vocabulary size", config.vocabulary, kWidthMax));
  MS_RETURN_NOT_OK(CheckRange("the number of layers", config.layers, 4096));
  MS_RETURN_NOT_OK(CheckRange("the hidden size", config.hidden, kWidthMax));
  MS_RETURN_NOT_OK(CheckRange("the feed-forward size", config.feed_forward, kWidthMax));
  MS_RETURN_NOT_OK(CheckRange("the number of heads", config.heads, 65536));
  MS_RETURN_NOT_OK(CheckRange("the number of key-value heads", config.kv_heads, 65536));
  MS_RETURN_NOT_OK(CheckRange("the head size", config.head_dim, 4096));
  if (config.heads % config.kv_heads != 0) {
    return Status::Invalid(
        config.heads, " heads cannot share ", config.kv_heads, " key-value heads evenly"
    );
  }
  if (config.head_dim % 2 != 0) {
    return Status::Invalid("the head size ", config.head_dim, " is odd");
  }
  if (!(config.norm_epsilon > 0) || !std::isfinite(config.norm_epsilon)) {
    return Status::Invalid("the norm's epsilon is not a positive number");
  }
  if (!(config.rope_theta > 1) || !std::isfinite(config.rope_theta)) {
    return Status::Invalid("RoPE's base is not a number above 1");
  }
  const float query_scale = config.query_scale.value_or(1);
  if (!(query_scale > 0) || !std::isfinite(query_scale)) {
    return Status::Invalid("the scale of queries is not a positive number");
  }
  if (config.window != 0) {
    MS_RETURN_NOT_OK(CheckRange("the window", config.window, std::int64_t{1} << 30));
    MS_RETURN_NOT_OK(CheckRange("the windows' pattern", config.window_pattern, 4097));
    if (!(config.window_rope_theta > 1) || !std::isfinite(config.window_rope_theta)) {
      return Status::Invalid("the windows' RoPE base is not a number above 1");
    }
  }
  return CheckScaling(config.rope_scaling);
}

Status CheckTensors(const ModelConfig& config, const TensorTable& tensors) {
  const std::vector<std::int64_t> embedding = {config.vocabulary, config.hidden};
  MS_RETURN_NOT_OK(CheckTensor(tensors, "token_embd.weight", embedding, true));
  MS_RETURN_NOT_OK(CheckTensor(tensors, "output.weight", embedding, !config.tied_embeddings));
  MS_RETURN_NOT_OK(CheckTensor(tensors, "output.bias", {config.vocabulary}, false));
  MS_RETURN_NOT_OK(CheckTensor(tensors, "output_norm.weight", {config.hidden}, true));
  MS_RETURN_NOT_OK(CheckTensor(tensors, "rope_freqs.weight", {config.head_dim / 2}, false));
  for (std::int64_t i = 0; i < config.layers; ++i) {
    MS_RETURN_NOT_OK(CheckLayer(config, tensors, "blk." + std::to_string(i) + "."));
  }
  return Status::OK();
}

std::string Quoted(std::string_view text) {
  constexpr std::size_t kBytesMax = 80;
  std::string quoted = "\"";
  for (const char c : text.substr(0, kBytesMax)) quoted += c >= ' ' && c <= '~' ? c : '?';
  quoted += text.size() > kBytesMax ? "...\"" : "\"";
  return quoted;
}

std::string ShapeText(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace millstream
