// SPDX-License-Identifier: Apache-2.0
#include "model/hf_config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/architecture.h"
#include "model/mapped_checkpoint.h"

namespace millstream {
namespace {

using nlohmann::json;

/// The architecture that "architectures" or, without it, "model_type" states.
Result<const Architecture*> StatedArchitecture(const JsonObject& config) {
  MS_ASSIGN_OR_RETURN(std::string stated, config.Text("model_type"));
  if (const json* list = config.Find("architectures")) {
    if (!list->is_array() || list->empty() || !(*list)[0].is_string()) {
      return config.WrongType("architectures", "a list of names");
    }
    stated = (*list)[0].get<std::string>();
  }
  const Architecture* architecture = FindHfArchitecture(stated);
  if (architecture != nullptr) return architecture;
  return Status::NotImplemented(
      config.name(),
      ": architecture ",
      Quoted(stated),
      " is not supported; supported: ",
      SupportedArchitectures()
  );
}

Result<RopeScaling> ReadYarn(const JsonObject& rope, RopeScaling scaling) {
  MS_ASSIGN_OR_RETURN(const auto fast, rope.Number("beta_fast"));
  MS_ASSIGN_OR_RETURN(const auto slow, rope.Number("beta_slow"));
  MS_ASSIGN_OR_RETURN(const auto attention, rope.Number("attention_factor"));
  MS_ASSIGN_OR_RETURN(const bool truncate, rope.Bool("truncate", true));
  if (!truncate || rope.Find("mscale") != nullptr || rope.Find("mscale_all_dim") != nullptr) {
    return Status::NotImplemented("yarn with truncate, mscale or mscale_all_dim is not supported");
  }
  scaling.kind = RopeScaling::Kind::kYarn;
  scaling.beta_fast = static_cast<float>(fast.value_or(32));
  scaling.beta_slow = static_cast<float>(slow.value_or(1));
  scaling.attention_factor =
      static_cast<float>(attention.value_or(0.1 * std::log(std::max(scaling.factor, 1.F)) + 1));
  return scaling;
}

/// Reads rope_scaling, or the rope_parameters that newer configurations have.
Result<RopeScaling> ReadRopeScaling(const JsonObject& rope, std::int64_t context) {
  RopeScaling scaling;
  MS_ASSIGN_OR_RETURN(std::string kind, rope.Text("rope_type"));
  if (kind.empty()) {
    MS_ASSIGN_OR_RETURN(kind, rope.Text("type"));
  }
  if (kind.empty() || kind == "default") return scaling;
  MS_ASSIGN_OR_RETURN(const auto factor, rope.Number("factor"));
  MS_ASSIGN_OR_RETURN(const auto original, rope.Integer("original_max_position_embeddings"));
  scaling.factor = static_cast<float>(factor.value_or(0));
  scaling.original_context = original.value_or(context);
  if (kind == "yarn") return ReadYarn(rope, scaling);
  if (kind == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    return scaling;
  }
  if (kind == "llama3") {
    MS_ASSIGN_OR_RETURN(const auto low, rope.Number("low_freq_factor"));
    MS_ASSIGN_OR_RETURN(const auto high, rope.Number("high_freq_factor"));
    if (!low || !high || !original) {
      return Status::Invalid(
          "llama3 needs low_freq_factor, high_freq_factor and original_max_position_embeddings"
      );
    }
    scaling.kind = RopeScaling::Kind::kLlama3;
    scaling.low_freq_factor = static_cast<float>(*low);
    scaling.high_freq_factor = static_cast<float>(*high);
    return scaling;
  }
  return Status::NotImplemented(
      Quoted(kind), " is not supported; supported: default, linear, llama3, yarn"
  );
}

Status ReadRope(const JsonObject& config, ModelConfig& model) {
  MS_ASSIGN_OR_RETURN(const auto theta, config.Number("rope_theta"));
  model.rope_theta = static_cast<float>(theta.value_or(10000));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* member = config.Find(key);
    if (member == nullptr) continue;
    if (!member->is_object()) return config.WrongType(key, "an object");
    MS_RETURN_NOT_OK(ReadRopeParameters(JsonObject(config.name() + ": " + key, *member), model));
  }
  return Status::OK();
}

Status RefuseVariants(const JsonObject& config) {
  if (config.Find("quantization_config") != nullptr) {
    return Status::NotImplemented(
        config.name(),
        ": quantised safetensors are not supported; supported: F32, F16 and BF16, or a GGUF file"
    );
  }
  MS_ASSIGN_OR_RETURN(const auto rotated, config.Number("partial_rotary_factor"));
  if (rotated.value_or(1) != 1) {
    return Status::NotImplemented(config.name(), ": partial_rotary_factor is not supported");
  }
  return Status::OK();
}

}  // namespace

Status ReadRopeParameters(const JsonObject& rope, ModelConfig& config) {
  MS_ASSIGN_OR_RETURN(const auto theta, rope.Number("rope_theta"));
  if (theta) config.rope_theta = static_cast<float>(*theta);
  auto scaling = ReadRopeScaling(rope, config.context);
  if (!scaling.ok()) return InFile(rope.name(), scaling.status());
  config.rope_scaling = *scaling;
  if (scaling->kind == RopeScaling::Kind::kYarn && scaling->original_context > 0 &&
      scaling->original_context <= (1 << 24) && scaling->factor > 1 && scaling->factor <= 1024) {
    const double stretched = static_cast<double>(scaling->original_context) * scaling->factor;
    config.context = std::max(config.context, static_cast<std::int64_t>(stretched));
  }
  return Status::OK();
}

Status RequireSilu(const JsonObject& json) {
  MS_ASSIGN_OR_RETURN(const std::string activation, json.Text("hidden_act"));
  if (activation.empty() || activation == "silu" || activation == "swish") return Status::OK();
  return Status::NotImplemented(
      json.name(), ": hidden_act ", Quoted(activation), " is not supported; supported: silu"
  );
}

Status ReadBiases(const JsonObject& json, ModelConfig& config) {
  MS_ASSIGN_OR_RETURN(config.qkv_bias, json.Bool("attention_bias", false));
  config.output_bias = config.qkv_bias;
  MS_ASSIGN_OR_RETURN(config.mlp_bias, json.Bool("mlp_bias", false));
  return Status::OK();
}

Status LimitToWindow(const JsonObject& json, bool used, ModelConfig& config) {
  MS_ASSIGN_OR_RETURN(const auto window, json.Integer("sliding_window"));
  MS_ASSIGN_OR_RETURN(const bool is_used, json.Bool("use_sliding_window", used));
  if (window && is_used) config.context = std::min(config.context, *window);
  return Status::OK();
}

Result<ModelConfig> ReadHfConfig(const JsonObject& config) {
  ModelConfig model;
  MS_ASSIGN_OR_RETURN(const Architecture* architecture, StatedArchitecture(config));
  model.architecture = architecture->name;
  MS_RETURN_NOT_OK(RefuseVariants(config));
  MS_ASSIGN_OR_RETURN(model.context, config.RequiredInteger("max_position_embeddings"));
  MS_ASSIGN_OR_RETURN(model.vocabulary, config.RequiredInteger("vocab_size"));
  MS_ASSIGN_OR_RETURN(model.layers, config.RequiredInteger("num_hidden_layers"));
  MS_ASSIGN_OR_RETURN(model.hidden, config.RequiredInteger("hidden_size"));
  MS_ASSIGN_OR_RETURN(model.feed_forward, config.RequiredInteger("intermediate_size"));
  MS_ASSIGN_OR_RETURN(model.heads, config.RequiredInteger("num_attention_heads"));
  MS_ASSIGN_OR_RETURN(const auto kv_heads, config.Integer("num_key_value_heads"));
  MS_ASSIGN_OR_RETURN(const auto head_dim, config.Integer("head_dim"));
  if (model.heads < 1) return config.WrongType("num_attention_heads", "at least 1");
  model.kv_heads = kv_heads.value_or(model.heads);
  model.head_dim = head_dim.value_or(model.hidden / model.heads);
  MS_ASSIGN_OR_RETURN(const auto epsilon, config.Number("rms_norm_eps"));
  model.norm_epsilon = static_cast<float>(epsilon.value_or(1e-6));
  MS_ASSIGN_OR_RETURN(model.tied_embeddings, config.Bool("tie_word_embeddings", false));
  MS_RETURN_NOT_OK(ReadRope(config, model));
  MS_RETURN_NOT_OK(architecture->read_hf(config, model));
  auto checked = CheckConfig(model);
  if (!checked.ok()) return InFile(config.name(), checked);
  return model;
}

}  // namespace millstream
