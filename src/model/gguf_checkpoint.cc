// SPDX-License-Identifier: Apache-2.0
// From a GGUF header to a checkpoint: what the metadata's keys mean.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "model/architecture.h"
#include "model/gguf.h"
#include "model/gguf_metadata.h"
#include "model/mapped_checkpoint.h"

namespace millstream {
namespace {

Result<RopeScaling> ReadRopeScaling(
    const GgufMetadata& metadata, const std::string& rope, std::int64_t context
) {
  RopeScaling scaling;
  MS_ASSIGN_OR_RETURN(const auto type, metadata.Text(rope + "scaling.type"));
  MS_ASSIGN_OR_RETURN(auto factor, metadata.Float(rope + "scaling.factor"));
  MS_ASSIGN_OR_RETURN(const auto old_factor, metadata.Float(rope + "scale_linear"));
  MS_ASSIGN_OR_RETURN(
      const auto original, metadata.Integer(rope + "scaling.original_context_length")
  );
  if (!factor) factor = old_factor;
  if (type == "none" || !factor) return scaling;
  if (type == "linear" || type.empty()) {
    scaling.kind = *factor == 1 ? RopeScaling::Kind::kNone : RopeScaling::Kind::kLinear;
  } else if (type == "yarn") {
    MS_ASSIGN_OR_RETURN(const auto attention, metadata.Float(rope + "scaling.attn_factor"));
    MS_ASSIGN_OR_RETURN(const auto fast, metadata.Float(rope + "scaling.yarn_beta_fast"));
    MS_ASSIGN_OR_RETURN(const auto slow, metadata.Float(rope + "scaling.yarn_beta_slow"));
    scaling.kind = RopeScaling::Kind::kYarn;
    scaling.original_context = original.value_or(context);
    scaling.attention_factor =
        attention.value_or(1) * (1 + 0.1F * std::log(std::max(*factor, 1.F)));
    scaling.beta_fast = fast.value_or(32);
    scaling.beta_slow = slow.value_or(1);
  } else {
    return Status::NotImplemented(
        "RoPE scaling ", Quoted(type), " is not supported; supported: none, linear, yarn"
    );
  }
  scaling.factor = *factor;
  return scaling;
}

Result<ModelConfig> ReadConfig(const GgufMetadata& metadata) {
  ModelConfig config;
  MS_ASSIGN_OR_RETURN(const auto name, metadata.Text("general.architecture"));
  const Architecture* architecture = FindGgufArchitecture(name);
  if (architecture == nullptr) {
    return Status::NotImplemented(
        "architecture ", Quoted(name), " is not supported; supported: ", SupportedArchitectures()
    );
  }
  config.architecture = name;
  const std::string prefix = config.architecture + ".";
  const auto integer = [&](const char* key) { return metadata.RequiredInteger(prefix + key); };
  MS_ASSIGN_OR_RETURN(config.context, integer("context_length"));
  MS_ASSIGN_OR_RETURN(config.layers, integer("block_count"));
  MS_ASSIGN_OR_RETURN(config.hidden, integer("embedding_length"));
  MS_ASSIGN_OR_RETURN(config.feed_forward, integer("feed_forward_length"));
  MS_ASSIGN_OR_RETURN(config.heads, integer("attention.head_count"));
  MS_ASSIGN_OR_RETURN(const auto kv_heads, metadata.Integer(prefix + "attention.head_count_kv"));
  config.kv_heads = kv_heads.value_or(config.heads);
  MS_ASSIGN_OR_RETURN(const auto key_length, metadata.Integer(prefix + "attention.key_length"));
  MS_ASSIGN_OR_RETURN(const auto value_length, metadata.Integer(prefix + "attention.value_length"));
  if (config.heads < 1) return Status::Invalid("the number of heads is ", config.heads);
  config.head_dim = key_length.value_or(config.hidden / config.heads);
  MS_ASSIGN_OR_RETURN(const auto rotated, metadata.Integer(prefix + "rope.dimension_count"));
  if (value_length.value_or(config.head_dim) != config.head_dim ||
      rotated.value_or(config.head_dim) != config.head_dim) {
    return Status::NotImplemented(
        "heads whose keys, values and rotated part differ in size are not supported"
    );
  }
  MS_ASSIGN_OR_RETURN(
      const auto epsilon, metadata.Float(prefix + "attention.layer_norm_rms_epsilon")
  );
  if (!epsilon) {
    return Status::Invalid("metadata key ", prefix, "attention.layer_norm_rms_epsilon is missing");
  }
  config.norm_epsilon = *epsilon;
  MS_ASSIGN_OR_RETURN(const auto theta, metadata.Float(prefix + "rope.freq_base"));
  config.rope_theta = theta.value_or(10000);
  MS_ASSIGN_OR_RETURN(
      config.rope_scaling, ReadRopeScaling(metadata, prefix + "rope.", config.context)
  );
  MS_RETURN_NOT_OK(architecture->read_gguf(metadata, config));
  return config;
}

/// Refuses what would be computed wrongly.
Status CheckVariant(const GgufMetadata& metadata, ModelConfig& config) {
  MS_ASSIGN_OR_RETURN(const auto parts, metadata.Integer("split.count"));
  if (parts && *parts > 1) {
    return Status::NotImplemented(
        "one of ", *parts, " parts of a split GGUF; join them with llama-gguf-split --merge"
    );
  }
  MS_ASSIGN_OR_RETURN(const auto experts, metadata.Integer(config.architecture + ".expert_count"));
  if (experts.value_or(0) > 0) {
    return Status::NotImplemented("mixtures of experts are not supported");
  }
  MS_ASSIGN_OR_RETURN(
      const auto window, metadata.Integer(config.architecture + ".attention.sliding_window")
  );
  // Attention that sees only so many tokens back is plain attention in a context no longer than
  // that.
  if (window && *window > 0 && config.window == 0)
    config.context = std::min(config.context, *window);
  return Status::OK();
}

Result<std::optional<std::int32_t>> TokenId(
    const GgufMetadata& metadata, const char* name, std::size_t vocabulary
) {
  const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
  MS_ASSIGN_OR_RETURN(const auto id, metadata.Integer(key));
  if (!id || *id == -1 || *id == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  if (*id < 0 || static_cast<std::uint64_t>(*id) >= vocabulary) {
    return Status::Invalid("metadata key ", key, " is ", *id, ", outside of the vocabulary");
  }
  return static_cast<std::int32_t>(*id);
}

Result<CheckpointVocabulary> ReadVocabulary(const GgufMetadata& metadata) {
  CheckpointVocabulary vocabulary;
  MS_ASSIGN_OR_RETURN(vocabulary.model, metadata.Text("tokenizer.ggml.model"));
  MS_ASSIGN_OR_RETURN(vocabulary.pre, metadata.Text("tokenizer.ggml.pre"));
  MS_ASSIGN_OR_RETURN(vocabulary.tokens, metadata.Texts("tokenizer.ggml.tokens"));
  MS_ASSIGN_OR_RETURN(vocabulary.merges, metadata.Texts("tokenizer.ggml.merges"));
  const std::size_t count = vocabulary.tokens.size();
  if (count == 0) return Status::Invalid("metadata key tokenizer.ggml.tokens is missing or empty");
  MS_ASSIGN_OR_RETURN(
      vocabulary.token_types, metadata.Integers("tokenizer.ggml.token_type", count)
  );
  MS_ASSIGN_OR_RETURN(vocabulary.scores, metadata.Floats("tokenizer.ggml.scores", count));
  MS_ASSIGN_OR_RETURN(vocabulary.bos_token, TokenId(metadata, "bos", count));
  MS_ASSIGN_OR_RETURN(vocabulary.eos_token, TokenId(metadata, "eos", count));
  MS_ASSIGN_OR_RETURN(vocabulary.unknown_token, TokenId(metadata, "unknown", count));
  // What the keys mean where they are missing is the format's custom.
  const bool sentencepiece = vocabulary.model == "llama";
  const bool llama3 = vocabulary.pre == "llama-bpe" || vocabulary.pre == "llama3";
  MS_ASSIGN_OR_RETURN(
      vocabulary.add_bos, metadata.Bool("tokenizer.ggml.add_bos_token", sentencepiece || llama3)
  );
  MS_ASSIGN_OR_RETURN(vocabulary.add_eos, metadata.Bool("tokenizer.ggml.add_eos_token", false));
  MS_ASSIGN_OR_RETURN(
      vocabulary.add_space_prefix, metadata.Bool("tokenizer.ggml.add_space_prefix", sentencepiece)
  );
  return vocabulary;
}

Status ReadStopTokens(const GgufMetadata& metadata, MappedCheckpoint& checkpoint) {
  constexpr std::int32_t kControl = 3;
  const CheckpointVocabulary& vocabulary = checkpoint.vocabulary;
  for (const char* name : {"eos", "eot", "eom"}) {
    MS_ASSIGN_OR_RETURN(const auto id, TokenId(metadata, name, vocabulary.tokens.size()));
    if (id) checkpoint.AddStopToken(*id);
  }
  for (std::size_t i = 0; i < vocabulary.token_types.size(); ++i) {
    if (vocabulary.token_types[i] == kControl && EndsTurn(vocabulary.tokens[i])) {
      checkpoint.AddStopToken(static_cast<std::int32_t>(i));
    }
  }
  return Status::OK();
}

Status ReadTokens(const GgufMetadata& metadata, MappedCheckpoint& checkpoint) {
  MS_ASSIGN_OR_RETURN(checkpoint.vocabulary, ReadVocabulary(metadata));
  const CheckpointVocabulary& vocabulary = checkpoint.vocabulary;
  MS_ASSIGN_OR_RETURN(checkpoint.chat_template, metadata.Text("tokenizer.chat_template"));
  const auto text = [&](std::optional<std::int32_t> id) {
    return std::string(id ? vocabulary.tokens[static_cast<std::size_t>(*id)] : "");
  };
  checkpoint.bos_token = text(vocabulary.bos_token);
  checkpoint.eos_token = text(vocabulary.eos_token);
  return ReadStopTokens(metadata, checkpoint);
}

}  // namespace

Result<std::shared_ptr<MappedCheckpoint>> OpenGguf(const std::string& path) {
  MS_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  const auto bytes = file->bytes();
  MS_ASSIGN_OR_RETURN(const GgufHeader header, GgufHeader::Parse(bytes));
  const GgufMetadata metadata(header);
  auto checkpoint = std::make_shared<MappedCheckpoint>();
  checkpoint->files.push_back(std::move(file));
  MS_ASSIGN_OR_RETURN(checkpoint->model, ReadConfig(metadata));
  MS_RETURN_NOT_OK(CheckVariant(metadata, checkpoint->model));
  MS_RETURN_NOT_OK(ReadTokens(metadata, *checkpoint));
  for (const TensorEntry& entry : header.tensors) {
    checkpoint->tensors.emplace(
        entry.name, TensorView{entry.type, entry.shape, bytes.data() + entry.begin, entry.size}
    );
  }
  ModelConfig& config = checkpoint->model;
  config.vocabulary = static_cast<std::int64_t>(checkpoint->vocabulary.tokens.size());
  config.tied_embeddings = checkpoint->Find("output.weight") == nullptr;
  MS_RETURN_NOT_OK(CheckConfig(config));
  MS_RETURN_NOT_OK(CheckTensors(config, checkpoint->tensors));
  checkpoint->Identify({reinterpret_cast<const char*>(bytes.data()), header.data_begin});
  return checkpoint;
}

}  // namespace millstream
