// SPDX-License-Identifier: Apache-2.0
#include "model/testing.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "kernels/dequantize.h"
#include "model/architecture.h"
#include "model/gguf.h"
#include "model/llama.h"
#include "model/tensor_table.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using nlohmann::json;

constexpr std::size_t kAlignment = 32;
constexpr const char* kChatTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

template <typename T>
std::string Raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string RawText(const std::string& text) {
  return Raw<std::uint64_t>(text.size()) + text;
}

std::uint32_t Code(GgufType type) {
  return static_cast<std::uint32_t>(type);
}

std::uint32_t GgmlCode(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return 0;
    case TensorType::kF16:
      return 1;
    case TensorType::kQ4_0:
      return 2;
    case TensorType::kQ4_1:
      return 3;
    case TensorType::kQ5_0:
      return 6;
    case TensorType::kQ5_1:
      return 7;
    case TensorType::kQ8_0:
      return 8;
    case TensorType::kQ4_K:
      return 12;
    case TensorType::kQ5_K:
      return 13;
    case TensorType::kQ6_K:
      return 14;
    case TensorType::kBF16:
      return 30;
  }
  return 0;
}

void Align(std::string& bytes) {
  bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
}

/// GPT-2's way to write a byte as a printable character, in UTF-8.
std::string ByteToken(int byte) {
  const auto printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

struct Weight {
  std::string gguf_name, hf_name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
  std::int64_t rotated_heads = 0;  // queries and keys: how many heads its rows make
  TensorType type = TensorType::kF32;
  std::string bytes;  // the values in the type
};

std::string RawFloats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/// Where a block has its f16 scale, and what it and the minimum after it must be for values of
/// about -0.5 to 0.5, whatever the other bits.
struct BlockScales {
  std::size_t place;
  float scale, minimum;  // 0: there is none
};

BlockScales ScalesOf(TensorType type) {
  switch (type) {
    case TensorType::kQ8_0:
      return {0, 1.0F / 256, 0};
    case TensorType::kQ4_0:
      return {0, 1.0F / 16, 0};
    case TensorType::kQ4_1:
      return {0, 1.0F / 16, -0.5F};
    case TensorType::kQ5_0:
      return {0, 1.0F / 32, 0};
    case TensorType::kQ5_1:
      return {0, 1.0F / 32, -0.5F};
    case TensorType::kQ4_K:
      return {0, 1.0F / 1000, 1.0F / 130};
    case TensorType::kQ5_K:
      return {0, 1.0F / 2000, 1.0F / 130};
    case TensorType::kQ6_K:
      return {208, 1.0F / 8000, 0};
    default:
      return {0, 0, 0};
  }
}

/// Makes the weights in one order, so that both formats get the same numbers.
class WeightMaker {
 public:
  explicit WeightMaker(const TinyModel& model) : model_(model) {}

  std::vector<Weight> Make() {
    const std::int64_t vocabulary = static_cast<std::int64_t>(model_.Tokens().size());
    Add("token_embd.weight", "model.embed_tokens.weight", {vocabulary, model_.hidden});
    for (std::int64_t i = 0; i < model_.layers; ++i) AddLayer(i);
    Add("output_norm.weight", "model.norm.weight", {model_.hidden});
    if (!model_.tied_embeddings) {
      Add("output.weight", "lm_head.weight", {vocabulary, model_.hidden});
    }
    return std::move(weights_);
  }

 private:
  void AddLayer(std::int64_t layer) {
    const std::string gguf = "blk." + std::to_string(layer) + ".";
    const std::string hf = "model.layers." + std::to_string(layer) + ".";
    const std::int64_t q = model_.heads * model_.head_dim();
    const std::int64_t kv = model_.kv_heads * model_.head_dim();
    const bool bias = model_.architecture == "qwen2";
    Add(gguf + "attn_norm.weight", hf + "input_layernorm.weight", {model_.hidden});
    AddProjection(gguf + "attn_q", hf + "self_attn.q_proj", q, model_.hidden, bias, model_.heads);
    AddProjection(
        gguf + "attn_k", hf + "self_attn.k_proj", kv, model_.hidden, bias, model_.kv_heads
    );
    AddProjection(gguf + "attn_v", hf + "self_attn.v_proj", kv, model_.hidden, bias, 0);
    AddProjection(gguf + "attn_output", hf + "self_attn.o_proj", model_.hidden, q, false, 0);
    if (model_.HasHeadNorms()) {
      Add(gguf + "attn_q_norm.weight", hf + "self_attn.q_norm.weight", {model_.head_dim()});
      Add(gguf + "attn_k_norm.weight", hf + "self_attn.k_norm.weight", {model_.head_dim()});
    }
    if (model_.IsGemma()) {
      for (const auto& [ours, theirs] :
           {std::pair("post_attention_norm", "post_attention_layernorm"),
            std::pair("ffn_norm", "pre_feedforward_layernorm"),
            std::pair("post_ffw_norm", "post_feedforward_layernorm")}) {
        Add(gguf + ours + ".weight", hf + theirs + ".weight", {model_.hidden});
      }
    } else {
      Add(gguf + "ffn_norm.weight", hf + "post_attention_layernorm.weight", {model_.hidden});
    }
    AddProjection(
        gguf + "ffn_gate", hf + "mlp.gate_proj", model_.feed_forward, model_.hidden, false, 0
    );
    AddProjection(
        gguf + "ffn_up", hf + "mlp.up_proj", model_.feed_forward, model_.hidden, false, 0
    );
    AddProjection(
        gguf + "ffn_down", hf + "mlp.down_proj", model_.hidden, model_.feed_forward, false, 0
    );
  }

  void AddProjection(
      const std::string& gguf,
      const std::string& hf,
      std::int64_t rows,
      std::int64_t columns,
      bool bias,
      std::int64_t rotated_heads
  ) {
    Add(gguf + ".weight", hf + ".weight", {rows, columns}, rotated_heads);
    if (bias) Add(gguf + ".bias", hf + ".bias", {rows}, rotated_heads);
  }

  void Add(
      std::string gguf,
      std::string hf,
      std::vector<std::int64_t> shape,
      std::int64_t rotated_heads = 0
  ) {
    const TensorType type = TypeOf(gguf, shape.size());
    Weight weight{std::move(gguf), std::move(hf), std::move(shape), {}, rotated_heads, type, {}};
    std::int64_t count = 1;
    for (const std::int64_t n : weight.shape) count *= n;
    const bool is_norm = weight.gguf_name.find("norm") != std::string::npos;
    for (std::int64_t i = 0; i < count; ++i) {
      const double unit = RandomUnit({model_.seed, 0}, drawn_++) - 0.5;
      weight.values.push_back(static_cast<float>(is_norm ? 1 + unit / 5 : unit));
    }
    SetBytes(weight);
    weights_.push_back(std::move(weight));
  }

  TensorType TypeOf(const std::string& name, std::size_t dimensions) const {
    if (dimensions == 1) return TensorType::kF32;
    const bool is_other =
        name.find("attn_v") != std::string::npos || name.find("ffn_down") != std::string::npos;
    return is_other ? model_.other_type.value_or(model_.type) : model_.type;
  }

  /// In types but F32, the values become those of the bytes.
  void SetBytes(Weight& weight) {
    if (weight.type == TensorType::kF32) {
      weight.bytes = RawFloats(weight.values);
      return;
    }
    if (weight.type == TensorType::kF16 || weight.type == TensorType::kBF16) {
      const bool is_f16 = weight.type == TensorType::kF16;
      for (const float value : weight.values) {
        weight.bytes += Raw(is_f16 ? kernels::F32ToF16(value) : kernels::F32ToBf16(value));
      }
    } else {
      weight.bytes = RandomBlocks(weight.type, weight.shape);
    }
    const TensorView view = {
        weight.type,
        weight.shape,
        reinterpret_cast<const std::byte*>(weight.bytes.data()),
        weight.bytes.size()
    };
    for (std::int64_t row = 0; row < weight.shape[0]; ++row) {
      ReadTensorRow(view, row, &weight.values[static_cast<std::size_t>(row * weight.shape[1])]);
    }
  }

  std::string RandomBlocks(TensorType type, const std::vector<std::int64_t>& shape) {
    const auto [place, scale, minimum] = ScalesOf(type);
    const std::int64_t width = type >= TensorType::kQ4_K ? 256 : 32;
    const std::size_t size = TensorBytes(type, std::array{width}).value();
    std::string bytes(TensorBytes(type, shape).value(), '\0');
    for (char& byte : bytes) byte = static_cast<char>(RandomBits({model_.seed, 0}, drawn_++));
    for (std::size_t at = place; at < bytes.size(); at += size) {
      bytes.replace(at, 2, Raw(kernels::F32ToF16(scale)));
      if (minimum != 0) bytes.replace(at + 2, 2, Raw(kernels::F32ToF16(minimum)));
    }
    return bytes;
  }

  const TinyModel& model_;
  std::vector<Weight> weights_;
  std::uint64_t drawn_ = 0;
};

/// Gemma 3's norms stand in safetensors less one.
std::vector<float> HfValues(const TinyModel& model, const Weight& weight) {
  std::vector<float> values = weight.values;
  if (model.IsGemma() && weight.gguf_name.find("norm") != std::string::npos) {
    for (float& value : values) value -= 1;
  }
  return values;
}

/// Rows of each head from halves (i, i + n/2) to neighbours (2i, 2i+1).
std::string Interleaved(const Weight& weight) {
  const auto rows = static_cast<std::size_t>(weight.shape[0]);
  const std::size_t row_bytes = weight.bytes.size() / rows;
  const std::size_t head = rows / static_cast<std::size_t>(weight.rotated_heads);
  std::string bytes;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t in_head = row % head;
    const std::size_t from = row - in_head + in_head / 2 + in_head % 2 * (head / 2);
    bytes.append(weight.bytes, from * row_bytes, row_bytes);
  }
  return bytes;
}

json TokenizerJson(const TinyModel& model) {
  const std::vector<std::string> tokens = model.Tokens();
  json vocabulary = json::object();
  json added = json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    vocabulary[tokens[i]] = i;
    if (i >= 3) continue;
    added.push_back(
        {{"id", i},
         {"content", tokens[i]},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}}
    );
  }
  const json bytes = {
      {"type", "ByteLevel"},
      {"add_prefix_space", false},
      {"trim_offsets", true},
      {"use_regex", true}
  };
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, bytes}}}},
      {"post_processor", nullptr},
      {"decoder", bytes},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocabulary},
        {"merges", model.Merges()}}}
  };
}

json ConfigJson(const TinyModel& model) {
  const Architecture* architecture = FindGgufArchitecture(model.architecture);
  MS_CHECK(architecture != nullptr);
  json config = {
      {"architectures", {architecture->hf_names[0].architecture}},
      {"model_type", architecture->hf_names[0].model_type},
      {"hidden_act", "silu"},
      {"hidden_size", model.hidden},
      {"intermediate_size", model.feed_forward},
      {"num_hidden_layers", model.layers},
      {"num_attention_heads", model.heads},
      {"num_key_value_heads", model.kv_heads},
      {"head_dim", model.head_dim()},
      {"max_position_embeddings", model.context},
      {"vocab_size", model.Tokens().size()},
      {"rms_norm_eps", 1e-5},
      {"rope_theta", 10000.0},
      {"tie_word_embeddings", model.tied_embeddings},
      {"bos_token_id", 1},
      {"eos_token_id", 2},
      {"torch_dtype", "float32"}
  };
  if (model.IsGemma()) {
    config.update(
        {{"hidden_activation", "gelu_pytorch_tanh"},
         {"query_pre_attn_scalar", model.head_dim()},
         {"rope_local_base_freq", 100.0},
         {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}},
         {"sliding_window", model.window}}
    );
  }
  return config;
}

}  // namespace

void GgufBuilder::AddHead(const std::string& key, std::uint32_t type) {
  ++num_keys_;
  metadata_ += RawText(key) + Raw(type);
}

void GgufBuilder::Add(const std::string& key, std::uint32_t value) {
  AddHead(key, Code(GgufType::kUint32));
  metadata_ += Raw(value);
}

void GgufBuilder::Add(const std::string& key, float value) {
  AddHead(key, Code(GgufType::kFloat32));
  metadata_ += Raw(value);
}

void GgufBuilder::Add(const std::string& key, bool value) {
  AddHead(key, Code(GgufType::kBool));
  metadata_ += Raw(value);
}

void GgufBuilder::Add(const std::string& key, const std::string& value) {
  AddHead(key, Code(GgufType::kString));
  metadata_ += RawText(value);
}

void GgufBuilder::Add(const std::string& key, const std::vector<std::string>& values) {
  AddHead(key, Code(GgufType::kArray));
  metadata_ += Raw(Code(GgufType::kString)) + Raw<std::uint64_t>(values.size());
  for (const std::string& value : values) metadata_ += RawText(value);
}

void GgufBuilder::Add(const std::string& key, const std::vector<std::int32_t>& values) {
  AddHead(key, Code(GgufType::kArray));
  metadata_ += Raw(Code(GgufType::kInt32)) + Raw<std::uint64_t>(values.size());
  for (const std::int32_t value : values) metadata_ += Raw(value);
}

void GgufBuilder::AddTensor(
    const std::string& name, TensorType type, std::vector<std::int64_t> shape, std::string bytes
) {
  tensors_.push_back({name, type, std::move(shape), std::move(bytes)});
}

std::pair<std::string, std::size_t> GgufBuilder::Build() const {
  std::string file = "GGUF" + Raw<std::uint32_t>(3) + Raw<std::uint64_t>(tensors_.size()) +
                     Raw(num_keys_) + metadata_;
  std::string data;
  for (const Tensor& tensor : tensors_) {
    Align(data);
    file += RawText(tensor.name) + Raw(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto n = tensor.shape.rbegin(); n != tensor.shape.rend(); ++n) {
      file += Raw<std::uint64_t>(static_cast<std::uint64_t>(*n));
    }
    file += Raw(GgmlCode(tensor.type)) + Raw<std::uint64_t>(data.size());
    data += tensor.bytes;
  }
  const std::size_t header = file.size();
  Align(file);
  return {file + data, header};
}

std::vector<std::string> TinyModel::Merges() const {
  if (!byte_tokens) return {"a b"};
  return {"t h", "th e", "\xC4\xA0 the", "i n", "a n"};
}

std::vector<std::string> TinyModel::Tokens() const {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  if (byte_tokens) {
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(ByteToken(byte));
  } else {
    tokens.insert(tokens.end(), {"a", "b"});
  }
  for (std::string merge : Merges()) {
    merge.erase(merge.find(' '), 1);
    tokens.push_back(merge);
  }
  return tokens;
}

GgufBuilder TinyGguf(const TinyModel& model) {
  GgufBuilder gguf;
  const std::string prefix = model.architecture + ".";
  const auto number = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
  gguf.Add("general.architecture", model.architecture);
  gguf.Add(prefix + "block_count", number(model.layers));
  gguf.Add(prefix + "context_length", number(model.context));
  gguf.Add(prefix + "embedding_length", number(model.hidden));
  gguf.Add(prefix + "feed_forward_length", number(model.feed_forward));
  gguf.Add(prefix + "attention.head_count", number(model.heads));
  gguf.Add(prefix + "attention.head_count_kv", number(model.kv_heads));
  if (model.HasHeadNorms()) {
    gguf.Add(prefix + "attention.key_length", number(model.head_dim()));
    gguf.Add(prefix + "attention.value_length", number(model.head_dim()));
  }
  gguf.Add(prefix + "attention.layer_norm_rms_epsilon", 1e-5F);
  gguf.Add(prefix + "rope.freq_base", 10000.F);
  if (model.IsGemma()) {
    gguf.Add(prefix + "attention.sliding_window", number(model.window));
    gguf.Add(prefix + "rope.freq_base_swa", 100.F);
    gguf.Add(prefix + "rope.scaling.type", "linear");
    gguf.Add(prefix + "rope.scaling.factor", 8.F);
  }
  const std::vector<std::string> tokens = model.Tokens();
  std::vector<std::int32_t> types(tokens.size(), 1);
  std::fill_n(types.begin(), 3, 3);
  gguf.Add("tokenizer.ggml.model", "gpt2");
  gguf.Add("tokenizer.ggml.pre", "smollm");
  gguf.Add("tokenizer.ggml.tokens", tokens);
  gguf.Add("tokenizer.ggml.token_type", types);
  gguf.Add("tokenizer.ggml.merges", model.Merges());
  gguf.Add("tokenizer.ggml.bos_token_id", 1U);
  gguf.Add("tokenizer.ggml.eos_token_id", 2U);
  gguf.Add("tokenizer.ggml.add_bos_token", false);
  gguf.Add("tokenizer.chat_template", kChatTemplate);
  const bool permuted = model.architecture == "llama";
  for (const Weight& weight : WeightMaker(model).Make()) {
    const bool is_permuted = permuted && weight.rotated_heads > 0;
    gguf.AddTensor(
        weight.gguf_name,
        weight.type,
        weight.shape,
        is_permuted ? Interleaved(weight) : weight.bytes
    );
  }
  return gguf;
}

Status WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  return file ? Status::OK() : Status::IOError("cannot write ", path);
}

std::string SafetensorsFile(const std::vector<SafetensorsTensor>& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const SafetensorsTensor& tensor : tensors) {
    const std::size_t begin = data.size();
    data += tensor.bytes;
    header[tensor.name] = {
        {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}
    };
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return Raw<std::uint64_t>(text.size()) + text + data;
}

Status WriteTinyFolder(const TinyModel& model, const std::string& folder, int shards) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::vector<std::vector<SafetensorsTensor>> files(static_cast<std::size_t>(shards));
  json weight_map = json::object();
  const auto file_name = [&](std::size_t shard) {
    return shards == 1 ? "model.safetensors"
                       : "model-" + std::to_string(shard + 1) + "-of-" + std::to_string(shards) +
                             ".safetensors";
  };
  std::size_t next = 0;
  for (const Weight& weight : WeightMaker(model).Make()) {
    const std::size_t shard = next++ % files.size();
    files[shard].push_back({weight.hf_name, "F32", weight.shape, RawFloats(HfValues(model, weight))}
    );
    weight_map[weight.hf_name] = file_name(shard);
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    MS_RETURN_NOT_OK(WriteFile(folder + "/" + file_name(i), SafetensorsFile(files[i])));
  }
  const auto write = [&](const char* name, const json& value) {
    return WriteFile(folder + "/" + name, value.dump(2));
  };
  if (shards > 1) {
    MS_RETURN_NOT_OK(write(
        "model.safetensors.index.json", {{"metadata", json::object()}, {"weight_map", weight_map}}
    ));
  }
  MS_RETURN_NOT_OK(write("config.json", ConfigJson(model)));
  MS_RETURN_NOT_OK(write(
      "generation_config.json", {{"eos_token_id", {2, 0}}, {"temperature", 0.7}, {"top_k", 20}}
  ));
  MS_RETURN_NOT_OK(write("tokenizer.json", TokenizerJson(model)));
  return write(
      "tokenizer_config.json",
      {{"bos_token", "<|im_start|>"},
       {"eos_token", {{"content", "<|im_end|>"}}},
       {"chat_template", kChatTemplate}}
  );
}

}  // namespace millstream
