// SPDX-License-Identifier: Apache-2.0
// Qwen 2 and 2.5: llama with biases on queries, keys and values.

#include "model/architecture.h"
#include "model/hf_config.h"

namespace millstream {
namespace {

constexpr Architecture::HfName kHfNames[] = {{"Qwen2ForCausalLM", "qwen2"}};

Status ReadGguf(const GgufMetadata& /*metadata*/, ModelConfig& config) {
  config.qkv_bias = true;
  return Status::OK();
}

Status ReadHf(const JsonObject& json, ModelConfig& config) {
  config.qkv_bias = true;
  MS_RETURN_NOT_OK(RequireSilu(json));
  return LimitToWindow(json, false, config);
}

}  // namespace

const Architecture kQwen2 = {
    .name = "qwen2",
    .hf_names = kHfNames,
    .module_names = {},
    .read_gguf = ReadGguf,
    .read_hf = ReadHf
};

}  // namespace millstream
