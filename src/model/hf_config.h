// SPDX-License-Identifier: Apache-2.0
// What a Hugging Face config.json says of a model.

#pragma once

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/json_file.h"

namespace millstream {

/// Reads a config.json. Code that it names (auto_map) is ignored. What we would compute wrongly is
/// refused.
Result<ModelConfig> ReadHfConfig(const JsonObject& json);

// What several architectures' read_hf share.

/// Refuses other activations.
Status RequireSilu(const JsonObject& json);
/// attention_bias and mlp_bias.
Status ReadBiases(const JsonObject& json, ModelConfig& config);
/// Of rope_scaling or rope_parameters, or an object in it.
Status ReadRopeParameters(const JsonObject& rope, ModelConfig& config);
/// Attention that sees only so many tokens back is plain attention in a context no longer than
/// that. `used`: whether sliding_window counts without use_sliding_window.
Status LimitToWindow(const JsonObject& json, bool used, ModelConfig& config);

}  // namespace millstream
