// SPDX-License-Identifier: Apache-2.0
#include "model/architecture.h"

#include <algorithm>
#include <array>

namespace millstream {
namespace {

constexpr std::array kArchitectures = {&kLlama, &kQwen2, &kQwen3, &kGemma3};

}  // namespace

const Architecture* FindGgufArchitecture(std::string_view name) {
  const auto* found = std::find_if(
      kArchitectures.begin(),
      kArchitectures.end(),
      [&](const Architecture* architecture) { return architecture->name == name; }
  );
  return found == kArchitectures.end() ? nullptr : *found;
}

const Architecture* FindHfArchitecture(std::string_view name) {
  for (const Architecture* architecture : kArchitectures) {
    for (const auto& [class_name, model_type] : architecture->hf_names) {
      if (name == class_name || name == model_type) return architecture;
    }
  }
  return nullptr;
}

std::string SupportedArchitectures() {
  std::string gguf;
  std::string hf;
  for (const Architecture* architecture : kArchitectures) {
    gguf.append(gguf.empty() ? "" : ", ").append(architecture->name);
    for (const auto& [class_name, model_type] : architecture->hf_names) {
      hf.append(hf.empty() ? "" : ", ").append(class_name);
    }
  }
  return gguf + " (GGUF); " + hf + " (safetensors)";
}

}  // namespace millstream
