// SPDX-License-Identifier: Apache-2.0
// Qwen 3, dense: llama with a norm on each head's queries and keys.

#include "model/architecture.h"
#include "model/hf_config.h"

namespace millstream {
namespace {

constexpr Architecture::HfName kHfNames[] = {{"Qwen3ForCausalLM", "qwen3"}};
constexpr Architecture::ModuleName kModuleNames[] = {
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"}
};

Status ReadGguf(const GgufMetadata& /*metadata*/, ModelConfig& config) {
  config.head_norms = true;
  return Status::OK();
}

Status ReadHf(const JsonObject& json, ModelConfig& config) {
  config.head_norms = true;
  if (json.Find("head_dim") == nullptr) config.head_dim = 128;
  MS_RETURN_NOT_OK(RequireSilu(json));
  MS_RETURN_NOT_OK(ReadBiases(json, config));
  return LimitToWindow(json, false, config);
}

}  // namespace

const Architecture kQwen3 = {
    .name = "qwen3",
    .hf_names = kHfNames,
    .module_names = kModuleNames,
    .read_gguf = ReadGguf,
    .read_hf = ReadHf
};

}  // namespace millstream
