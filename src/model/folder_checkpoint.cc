// SPDX-License-Identifier: Apache-2.0
// A folder as Hugging Face lays it: config.json, safetensors (one file or shards with an index),
// and the tokenizer's files.

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "model/architecture.h"
#include "model/hf_config.h"
#include "model/json_file.h"
#include "model/mapped_checkpoint.h"
#include "model/safetensors.h"

namespace millstream {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::uint64_t kConfigBytesMax = std::uint64_t{16} << 20;
constexpr std::uint64_t kTokenizerBytesMax = std::uint64_t{512} << 20;

/// The GGUF naming's word for a layer's module, or empty if it is none of ours.
std::string_view TranslateModule(std::string_view name, const Architecture& architecture) {
  static constexpr Architecture::ModuleName kLlamaNames[] = {
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
  };
  for (const auto& [hf, gguf] : architecture.module_names) {
    if (name == hf) return gguf;
  }
  for (const auto& [hf, gguf] : kLlamaNames) {
    if (name == hf) return gguf;
  }
  return {};
}

/// The GGUF naming's word for a tensor, or empty if it is none of ours.
std::string TranslateName(std::string_view name, const Architecture& architecture) {
  static const std::map<std::string_view, std::string_view> kOuter = {
      {"embed_tokens.weight", "token_embd.weight"},
      {"norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
  };
  constexpr std::string_view kModel = "model.";
  constexpr std::string_view kLayers = "layers.";
  if (name.starts_with(kModel)) name.remove_prefix(kModel.size());
  if (const auto outer = kOuter.find(name); outer != kOuter.end()) {
    return std::string(outer->second);
  }
  if (!name.starts_with(kLayers)) return {};
  name.remove_prefix(kLayers.size());
  const std::size_t dot = name.find('.');
  const std::size_t last_dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == last_dot) return {};
  const std::string_view kind = name.substr(last_dot);
  if (kind != ".weight" && kind != ".bias") return {};
  const auto module = TranslateModule(name.substr(dot + 1, last_dot - dot - 1), architecture);
  if (module.empty()) return {};
  return "blk." + std::string(name.substr(0, dot)) + "." + std::string(module) + std::string(kind);
}

/// Whether the configuration gives a tensor of ours a use.
bool IsUsed(const std::string& name, const ModelConfig& config) {
  if (name == "output.weight") return !config.tied_embeddings;
  if (!name.ends_with(".bias")) return true;
  if (name.find(".ffn_") != std::string::npos) return config.mlp_bias;
  if (name.ends_with(".attn_output.bias")) return config.output_bias;
  return config.qkv_bias;
}

/// A folder being opened.
class FolderReader {
 public:
  explicit FolderReader(std::string folder) : folder_(std::move(folder)) {}

  Result<std::shared_ptr<MappedCheckpoint>> Read();
  /// The tokenizer's files alone.
  Result<std::shared_ptr<MappedCheckpoint>> ReadTokenizerFiles();

 private:
  bool Has(const std::string& name) const {
    std::error_code error;
    return fs::exists(fs::path(folder_) / name, error);
  }
  Result<JsonObject> ReadJson(const std::string& name) const {
    return JsonObject::Read(folder_, name, kConfigBytesMax);
  }
  Result<std::string> ReadFile(const std::string& name, std::uint64_t bytes_max) const;

  Status NoWeights() const;
  Status ReadWeights();
  Result<std::map<std::string, std::vector<std::string>>> ReadIndex(const std::string& name) const;
  Status ReadShard(const std::string& name, const std::vector<std::string>* expected);
  Status AddTensor(const TensorEntry& entry, std::span<const std::byte> file);
  Status ReadTokenizer();
  Result<JsonObject> ReadTokenizerConfig();
  Status ReadChatTemplate(const JsonObject& config);
  Status ReadGeneration();
  Status AddStopTokens(const JsonObject& json);
  Result<std::string> SpecialText(const JsonObject& json, const char* key) const;

  const std::string folder_;
  ModelConfig config_;
  const Architecture* architecture_ = nullptr;
  std::map<std::string, std::int32_t> added_tokens_;
  std::shared_ptr<MappedCheckpoint> checkpoint_ = std::make_shared<MappedCheckpoint>();
};

Result<std::string> FolderReader::ReadFile(const std::string& name, std::uint64_t bytes_max) const {
  auto text = ReadText(folder_ + "/" + name, bytes_max);
  if (!text.ok()) return InFile(name, text.status());
  return text;
}

Status FolderReader::NoWeights() const {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder_, error)) {
    const std::string name = file.path().filename().string();
    const std::string suffix = file.path().extension().string();
    if (suffix == ".gguf") {
      return Status::Invalid("the folder has a GGUF file: name it, as in ", name);
    }
    if (suffix == ".bin" || suffix == ".pt" || suffix == ".pth" || suffix == ".pkl") {
      return Status::NotImplemented(
          name,
          " can run code when it is loaded and is refused; supported: safetensors "
          "(model.safetensors)"
      );
    }
  }
  return Status::Invalid("the folder has neither model.safetensors nor model.safetensors.index.json"
  );
}

Result<std::map<std::string, std::vector<std::string>>> FolderReader::ReadIndex(
    const std::string& name
) const {
  MS_ASSIGN_OR_RETURN(
      const JsonObject index, JsonObject::Read(folder_, name, std::uint64_t{64} << 20)
  );
  const json* map = index.Find("weight_map");
  if (map == nullptr || !map->is_object()) return index.WrongType("weight_map", "an object");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return index.WrongType("weight_map", "an object of file names");
    const auto& shard = file.get_ref<const std::string&>();
    if (shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos ||
        !shard.ends_with(".safetensors")) {
      return Status::Invalid(
          name, ": ", Quoted(shard), " is not the name of a safetensors file in the folder"
      );
    }
    shards[shard].push_back(tensor);
  }
  return shards;
}

Status FolderReader::ReadWeights() {
  if (Has(kSingle)) return ReadShard(kSingle, nullptr);
  if (!Has(kIndex)) return NoWeights();
  MS_ASSIGN_OR_RETURN(const auto shards, ReadIndex(kIndex));
  for (const auto& [shard, tensors] : shards) MS_RETURN_NOT_OK(ReadShard(shard, &tensors));
  return Status::OK();
}

Status FolderReader::ReadShard(const std::string& name, const std::vector<std::string>* expected) {
  const auto read = [&]() -> Status {
    MS_ASSIGN_OR_RETURN(auto file, MappedFile::Open(folder_ + "/" + name));
    MS_ASSIGN_OR_RETURN(const auto header, SafetensorsHeader::Parse(file->bytes()));
    std::map<std::string_view, const TensorEntry*> entries;
    for (const TensorEntry& entry : header.tensors) entries.emplace(entry.name, &entry);
    if (expected == nullptr) {
      for (const TensorEntry& entry : header.tensors) {
        MS_RETURN_NOT_OK(AddTensor(entry, file->bytes()));
      }
    } else {
      for (const std::string& tensor : *expected) {
        const auto found = entries.find(tensor);
        if (found == entries.end()) {
          return Status::Invalid("tensor ", Quoted(tensor), " is missing");
        }
        MS_RETURN_NOT_OK(AddTensor(*found->second, file->bytes()));
      }
    }
    checkpoint_->files.push_back(std::move(file));
    return Status::OK();
  };
  const Status status = read();
  return status.ok() ? status : InFile(name, status);
}

Status FolderReader::AddTensor(const TensorEntry& entry, std::span<const std::byte> file) {
  const std::string name = TranslateName(entry.name, *architecture_);
  if (name.empty() || !IsUsed(name, config_)) return Status::OK();
  if (!entry.unsupported.empty()) {
    return Status::NotImplemented(
        "tensor ",
        Quoted(entry.name),
        " has type ",
        Quoted(entry.unsupported),
        ", which is not supported; supported: F32, F16, BF16"
    );
  }
  if (entry.size == 0) return Status::Invalid("tensor ", Quoted(entry.name), " is empty");
  const auto bytes = file.subspan(entry.begin, entry.size);
  TensorView view{entry.type, entry.shape, bytes.data(), bytes.size()};
  const std::size_t alignment = entry.type == TensorType::kF32 ? 4 : 2;
  if (reinterpret_cast<std::uintptr_t>(view.data) % alignment != 0) {
    // Old writers did not align; a copy is always aligned.
    checkpoint_->copies.emplace_back(bytes.begin(), bytes.end());
    view.data = checkpoint_->copies.back().data();
  }
  if (!checkpoint_->tensors.emplace(name, std::move(view)).second) {
    return Status::Invalid("tensor ", Quoted(entry.name), " appears twice");
  }
  return Status::OK();
}

/// A special token's text: a string, or an object with its content.
Result<std::string> FolderReader::SpecialText(const JsonObject& json_object, const char* key)
    const {
  const json* member = json_object.Find(key);
  if (member == nullptr) return std::string();
  if (member->is_object()) {
    return JsonObject(json_object.name() + ": " + key, *member).Text("content");
  }
  return json_object.Text(key);
}

Status FolderReader::ReadTokenizer() {
  constexpr const char* kTokenizer = "tokenizer.json";
  if (!Has(kTokenizer)) {
    return Status::Invalid(
        "the folder has no tokenizer.json; other tokenizer files are not supported"
    );
  }
  MS_ASSIGN_OR_RETURN(checkpoint_->tokenizer_json, ReadFile(kTokenizer, kTokenizerBytesMax));
  auto parsed = ParseObject(checkpoint_->tokenizer_json, "model");
  if (!parsed.ok()) return InFile(kTokenizer, parsed.status());
  const JsonObject tokenizer(kTokenizer, parsed.MoveValueUnsafe());
  const json* added = tokenizer.Find("added_tokens");
  if (added == nullptr) return Status::OK();
  if (!added->is_array()) return tokenizer.WrongType("added_tokens", "a list");
  for (const json& entry : *added) {
    if (!entry.is_object()) return tokenizer.WrongType("added_tokens", "a list of objects");
    const JsonObject token(std::string(kTokenizer) + ": added_tokens", entry);
    MS_ASSIGN_OR_RETURN(const std::int64_t id, token.RequiredInteger("id"));
    MS_ASSIGN_OR_RETURN(const std::string content, token.Text("content"));
    MS_ASSIGN_OR_RETURN(const bool special, token.Bool("special", false));
    if (!special) continue;
    // Ids past the embeddings are never sampled; a prompt that has one is an error of its row.
    if (id < 0 || id >= config_.vocabulary) continue;
    added_tokens_[content] = static_cast<std::int32_t>(id);
  }
  return Status::OK();
}

/// In order: chat_template.jinja, tokenizer_config.json (a text, or a list of named ones),
/// chat_template.json.
Status FolderReader::ReadChatTemplate(const JsonObject& config) {
  std::string& text = checkpoint_->chat_template;
  if (Has("chat_template.jinja")) {
    MS_ASSIGN_OR_RETURN(text, ReadFile("chat_template.jinja", kConfigBytesMax));
    return Status::OK();
  }
  const json* member = config.Find("chat_template");
  if (member != nullptr && member->is_array()) {
    for (const json& entry : *member) {
      if (!entry.is_object()) {
        return config.WrongType("chat_template", "a text or a list of objects");
      }
      const JsonObject named(config.name() + ": chat_template", entry);
      MS_ASSIGN_OR_RETURN(const std::string name, named.Text("name"));
      if (name != "default") continue;
      MS_ASSIGN_OR_RETURN(text, named.Text("template"));
    }
    return Status::OK();
  }
  MS_ASSIGN_OR_RETURN(text, config.Text("chat_template"));
  if (!text.empty() || !Has("chat_template.json")) return Status::OK();
  MS_ASSIGN_OR_RETURN(const JsonObject own_file, ReadJson("chat_template.json"));
  MS_ASSIGN_OR_RETURN(text, own_file.Text("chat_template"));
  return Status::OK();
}

/// Adds eos_token_id: an id or a list of ids. An id of -1 says that there is none.
Status FolderReader::AddStopTokens(const JsonObject& object) {
  const json* member = object.Find("eos_token_id");
  if (member == nullptr) return Status::OK();
  const json ids = member->is_array() ? *member : json::array({*member});
  for (const json& id : ids) {
    if (!id.is_number_integer()) return object.WrongType("eos_token_id", "an id or a list of ids");
    if (!id.is_number_unsigned()) continue;
    const auto value = id.get<std::uint64_t>();
    if (value >= static_cast<std::uint64_t>(config_.vocabulary)) {
      return Status::Invalid(
          object.name(), ": eos_token_id ", value, " is outside of the vocabulary"
      );
    }
    checkpoint_->AddStopToken(static_cast<std::int32_t>(value));
  }
  return Status::OK();
}

Status FolderReader::ReadGeneration() {
  constexpr const char* kName = "generation_config.json";
  if (!Has(kName)) return Status::OK();
  MS_ASSIGN_OR_RETURN(const JsonObject generation, ReadJson(kName));
  GenerationDefaults& defaults = checkpoint_->defaults;
  defaults.source = kName;
  MS_ASSIGN_OR_RETURN(defaults.temperature, generation.Number("temperature"));
  MS_ASSIGN_OR_RETURN(defaults.top_p, generation.Number("top_p"));
  MS_ASSIGN_OR_RETURN(defaults.min_p, generation.Number("min_p"));
  MS_ASSIGN_OR_RETURN(defaults.repetition_penalty, generation.Number("repetition_penalty"));
  MS_ASSIGN_OR_RETURN(defaults.top_k, generation.Integer("top_k"));
  MS_ASSIGN_OR_RETURN(defaults.max_tokens, generation.Integer("max_new_tokens"));
  return AddStopTokens(generation);
}

/// With the chat template and what it prints.
Result<JsonObject> FolderReader::ReadTokenizerConfig() {
  JsonObject config("tokenizer_config.json", json::object());
  if (Has(config.name())) {
    MS_ASSIGN_OR_RETURN(config, ReadJson(config.name()));
  }
  MS_RETURN_NOT_OK(ReadChatTemplate(config));
  MS_ASSIGN_OR_RETURN(checkpoint_->bos_token, SpecialText(config, "bos_token"));
  MS_ASSIGN_OR_RETURN(checkpoint_->eos_token, SpecialText(config, "eos_token"));
  return config;
}

Result<std::shared_ptr<MappedCheckpoint>> FolderReader::ReadTokenizerFiles() {
  MS_RETURN_NOT_OK(ReadTokenizer());
  MS_RETURN_NOT_OK(ReadTokenizerConfig().status());
  return checkpoint_;
}

Result<std::shared_ptr<MappedCheckpoint>> FolderReader::Read() {
  if (!Has("config.json")) {
    return Has(kSingle) || Has(kIndex) ? Status::Invalid("the folder has no config.json")
                                       : NoWeights();
  }
  MS_ASSIGN_OR_RETURN(const JsonObject config, ReadJson("config.json"));
  MS_ASSIGN_OR_RETURN(config_, ReadHfConfig(config));
  architecture_ = FindGgufArchitecture(config_.architecture);
  checkpoint_->model = config_;
  MS_RETURN_NOT_OK(ReadWeights());
  MS_RETURN_NOT_OK(CheckTensors(config_, checkpoint_->tensors));
  MS_RETURN_NOT_OK(ReadTokenizer());
  MS_RETURN_NOT_OK(ReadGeneration());
  MS_RETURN_NOT_OK(AddStopTokens(config));
  MS_ASSIGN_OR_RETURN(const JsonObject tokenizer_config, ReadTokenizerConfig());
  for (const auto& [text, id] : added_tokens_) {
    if (text == checkpoint_->eos_token || EndsTurn(text)) checkpoint_->AddStopToken(id);
  }
  checkpoint_->Identify(config.Dump() + tokenizer_config.Dump() + checkpoint_->tokenizer_json);
  return checkpoint_;
}

}  // namespace

Result<std::shared_ptr<MappedCheckpoint>> OpenTokenizerFolder(const std::string& path) {
  return FolderReader(path).ReadTokenizerFiles();
}

Result<std::shared_ptr<MappedCheckpoint>> OpenFolder(const std::string& path) {
  return FolderReader(path).Read();
}

}  // namespace millstream
