// SPDX-License-Identifier: Apache-2.0
// What a Hugging Face config.json says of a model of the llama family.

#pragma once

#include "base/status.h"
#include "model/json_file.h"
#include "model/tensor_table.h"

namespace millstream {

struct HfConfig {
  ModelConfig model;
  TensorRequirements requirements;
};

/// Reads a config.json. Code that it names (auto_map) is ignored. What we would compute wrongly is
/// refused.
Result<HfConfig> ReadHfConfig(const JsonObject& json);

}  // namespace millstream
