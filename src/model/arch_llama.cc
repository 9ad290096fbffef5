// SPDX-License-Identifier: Apache-2.0
// Llama, and what is built like it: SmolLM2, Mistral.

#include "model/architecture.h"
#include "model/hf_config.h"

namespace millstream {
namespace {

constexpr Architecture::HfName kHfNames[] = {
    {"LlamaForCausalLM", "llama"}, {"MistralForCausalLM", "mistral"}
};

Status ReadGguf(const GgufMetadata& /*metadata*/, ModelConfig& config) {
  config.rope_interleaved = true;
  return Status::OK();
}

Status ReadHf(const JsonObject& json, ModelConfig& config) {
  MS_RETURN_NOT_OK(RequireSilu(json));
  MS_RETURN_NOT_OK(ReadBiases(json, config));
  return LimitToWindow(json, true, config);
}

}  // namespace

const Architecture kLlama = {
    .name = "llama",
    .hf_names = kHfNames,
    .module_names = {},
    .read_gguf = ReadGguf,
    .read_hf = ReadHf
};

}  // namespace millstream
