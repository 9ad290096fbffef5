// SPDX-License-Identifier: Apache-2.0
// From what a job file calls a model to the files on this machine.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace millstream {

/// Where models are looked for.
struct ModelSearch {
  std::string base_folder;                   // relative paths
  std::vector<std::string> package_folders;  // site-packages: the clone's .deps/venv, $VIRTUAL_ENV
  std::string hub_cache;                     // Hugging Face's cache
};

/// The search for the running process: package folders from the binary's own path (never from the
/// working directory) and $VIRTUAL_ENV, the cache from HF_HUB_CACHE, HF_HOME or
/// ~/.cache/huggingface/hub.
ModelSearch DefaultModelSearch(std::string base_folder);

/// Finds a model by path, folder, name of an installed model package ("smollm2-135m-instruct": the
/// GGUF's file name in lower case without its quantisation suffix), or Hugging Face id ("org/repo",
/// "org/repo@revision") in the cache. The error says what was looked for and where, the nearest
/// name, and for an id the `hf download` line.
Result<std::string> LocateModel(const std::string& name, const ModelSearch& search);

/// A model that `millstream models` lists.
struct FoundModel {
  std::string name, path, architecture, problem;  // problem: why it cannot be used, or empty
  std::uint64_t size_bytes = 0;
  std::int64_t context = 0;
};
std::vector<FoundModel> ListModels(const ModelSearch& search);

}  // namespace millstream
