// SPDX-License-Identifier: Apache-2.0
#include "engine/testing.h"

#include <unistd.h>

#include <filesystem>
#include <string>

namespace millstream {

std::shared_ptr<const LanguageModel> OpenTinyLanguageModel(const TinyModel& tiny) {
  const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                     ("millstream-tiny-" + std::to_string(getpid()) + ".gguf");
  if (!WriteFile(file.string(), TinyGguf(tiny).Build().first).ok()) return nullptr;
  auto model = OpenLanguageModel(file.string(), "");
  std::filesystem::remove(file);  // stays mapped
  return model.ok() ? *model : nullptr;
}

}  // namespace millstream
