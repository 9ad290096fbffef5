// SPDX-License-Identifier: Apache-2.0
// Gemma 3, its text part: norms on heads and after each part of a layer too, gelu gates, embeddings
// scaled; most layers see a window and have RoPE of their own.

#include <algorithm>
#include <cmath>

#include "model/architecture.h"
#include "model/hf_config.h"

namespace millstream {
namespace {

using nlohmann::json;

constexpr std::int64_t kPattern = 6;
constexpr float kWindowTheta = 10000;

constexpr Architecture::HfName kHfNames[] = {{"Gemma3ForCausalLM", "gemma3_text"}};
constexpr Architecture::ModuleName kModuleNames[] = {
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};

void SetCommon(ModelConfig& config) {
  config.head_norms = true;
  config.post_norms = true;
  config.gelu = true;
  // In f32; transformers rounds it to the weights' type.
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden));
}

Status ReadGguf(const GgufMetadata& metadata, ModelConfig& config) {
  SetCommon(config);
  for (const char* key : {"gemma3.attn_logit_softcapping", "gemma3.final_logit_softcapping"}) {
    MS_ASSIGN_OR_RETURN(const auto cap, metadata.Float(key));
    if (cap.value_or(0) != 0) return Status::NotImplemented(key, " is not supported");
  }
  MS_ASSIGN_OR_RETURN(const auto window, metadata.Integer("gemma3.attention.sliding_window"));
  config.window = window.value_or(0);
  MS_ASSIGN_OR_RETURN(
      const auto pattern, metadata.Integer("gemma3.attention.sliding_window_pattern")
  );
  config.window_pattern = pattern.value_or(kPattern);
  MS_ASSIGN_OR_RETURN(const auto window_theta, metadata.Float("gemma3.rope.freq_base_swa"));
  config.window_rope_theta = window_theta.value_or(kWindowTheta);
  // The file does not state query_pre_attn_scalar: it is the heads' size but in the model of 27 B
  // parameters, told by its layers.
  if (config.layers == 62) {
    const auto scalar = static_cast<float>(config.hidden / config.heads);
    config.query_scale = 1 / std::sqrt(scalar);
  }
  return Status::OK();
}

/// How many layers it takes until one sees all.
Result<std::int64_t> ReadPattern(const JsonObject& config_json, std::int64_t layers) {
  const json* types = config_json.Find("layer_types");
  if (types == nullptr) {
    MS_ASSIGN_OR_RETURN(const auto pattern, config_json.Integer("sliding_window_pattern"));
    return pattern.value_or(kPattern);
  }
  if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers) {
    return config_json.WrongType("layer_types", "a list of the layers' types");
  }
  const auto full = std::find(types->begin(), types->end(), "full_attention");
  const auto pattern = static_cast<std::int64_t>(full - types->begin()) + 1;
  for (std::int64_t i = 0; i < layers; ++i) {
    const char* expected = (i + 1) % pattern == 0 ? "full_attention" : "sliding_attention";
    if ((*types)[static_cast<std::size_t>(i)] != expected) {
      return Status::NotImplemented(
          config_json.name(), ": layer_types that repeat no pattern are not supported"
      );
    }
  }
  return pattern;
}

/// In older configurations rope_theta and rope_scaling are those of the layers that see all, and
/// rope_local_base_freq is the others'; in newer ones rope_parameters has an object for each.
Status ReadRope(const JsonObject& config_json, ModelConfig& config) {
  MS_ASSIGN_OR_RETURN(const auto window_theta, config_json.Number("rope_local_base_freq"));
  config.window_rope_theta = static_cast<float>(window_theta.value_or(kWindowTheta));
  if (config_json.Find("rope_theta") == nullptr) config.rope_theta = 1000000;
  const json* parameters = config_json.Find("rope_parameters");
  if (parameters == nullptr) return Status::OK();
  const JsonObject each(config_json.name() + ": rope_parameters", *parameters);
  const auto read = [&](const char* key, ModelConfig& into) {
    const json* member = each.Find(key);
    if (member == nullptr) return Status::OK();
    if (!member->is_object()) return each.WrongType(key, "an object");
    return ReadRopeParameters(JsonObject(each.name() + ": " + key, *member), into);
  };
  MS_RETURN_NOT_OK(read("full_attention", config));
  ModelConfig windowed = config;
  windowed.rope_theta = config.window_rope_theta;
  windowed.rope_scaling = {};
  MS_RETURN_NOT_OK(read("sliding_attention", windowed));
  if (windowed.rope_scaling.kind != RopeScaling::Kind::kNone) {
    return Status::NotImplemented(
        each.name(), ": sliding_attention that is scaled is not supported; supported: default"
    );
  }
  config.window_rope_theta = windowed.rope_theta;
  return Status::OK();
}

Status RefuseVariants(const JsonObject& config_json) {
  MS_ASSIGN_OR_RETURN(const std::string activation, config_json.Text("hidden_activation"));
  if (!activation.empty() && activation != "gelu_pytorch_tanh") {
    return Status::NotImplemented(
        config_json.name(),
        ": hidden_activation ",
        Quoted(activation),
        " is not supported; supported: gelu_pytorch_tanh"
    );
  }
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (config_json.Find(key) == nullptr) continue;
    return Status::NotImplemented(config_json.name(), ": ", key, " is not supported");
  }
  MS_ASSIGN_OR_RETURN(
      const bool sees_ahead, config_json.Bool("use_bidirectional_attention", false)
  );
  if (!sees_ahead) return Status::OK();
  return Status::NotImplemented(
      config_json.name(), ": use_bidirectional_attention is not supported"
  );
}

Status ReadHf(const JsonObject& config_json, ModelConfig& config) {
  MS_RETURN_NOT_OK(RefuseVariants(config_json));
  SetCommon(config);
  config.norm_offset = 1;  // the weights are stated less one
  if (config_json.Find("head_dim") == nullptr) config.head_dim = 256;
  MS_ASSIGN_OR_RETURN(config.tied_embeddings, config_json.Bool("tie_word_embeddings", true));
  MS_RETURN_NOT_OK(ReadBiases(config_json, config));
  MS_RETURN_NOT_OK(ReadRope(config_json, config));
  MS_ASSIGN_OR_RETURN(const auto scalar, config_json.Number("query_pre_attn_scalar"));
  config.query_scale = static_cast<float>(1 / std::sqrt(scalar.value_or(256)));
  MS_ASSIGN_OR_RETURN(const auto window, config_json.Integer("sliding_window"));
  config.window = window.value_or(4096);
  MS_ASSIGN_OR_RETURN(config.window_pattern, ReadPattern(config_json, config.layers));
  return Status::OK();
}

}  // namespace

const Architecture kGemma3 = {
    .name = "gemma3",
    .hf_names = kHfNames,
    .module_names = kModuleNames,
    .read_gguf = ReadGguf,
    .read_hf = ReadHf
};

}  // namespace millstream
