// SPDX-License-Identifier: Apache-2.0
// The architectures that are known, each in a file of its own (arch_*.cc) that says what is
// peculiar to it. The forward pass is one for all (llama.h): what it does beyond llama's,
// ModelConfig asks for. docs/adding-a-model.md says how to add one.

#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/gguf_metadata.h"
#include "model/json_file.h"

namespace millstream {

struct Architecture {
  /// What config.json says: the first of "architectures" or, without it, "model_type".
  struct HfName {
    std::string_view architecture, model_type;
  };
  /// A module of a layer, without ".weight" or ".bias".
  struct ModuleName {
    std::string_view hf, gguf;  // "mlp.up_proj", "ffn_up"
  };

  std::string_view name;  // in a GGUF file's general.architecture
  std::span<const HfName> hf_names;
  std::span<const ModuleName> module_names;  // those that are not, or not the same, in llama

  // Set what llama has not, and refuse what would be computed wrongly. The rest of `config` has
  // been read then; CheckConfig() comes after.
  Status (*read_gguf)(const GgufMetadata& metadata, ModelConfig& config);
  Status (*read_hf)(const JsonObject& json, ModelConfig& config);
};

extern const Architecture kLlama;
extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kGemma3;

/// By the name of a GGUF file, or null.
const Architecture* FindGgufArchitecture(std::string_view name);
/// By either of the names in a config.json, or null.
const Architecture* FindHfArchitecture(std::string_view name);
/// All names, for messages.
std::string SupportedArchitectures();

}  // namespace millstream
