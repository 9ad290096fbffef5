// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "model/mapped_checkpoint.h"

namespace millstream {
namespace {

/// File suffixes of weights that can hold code.
constexpr std::array<std::string_view, 6> kPickleSuffixes = {
    ".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle"
};

using FolderOpener = Result<std::shared_ptr<MappedCheckpoint>> (*)(const std::string& path);

Result<std::shared_ptr<MappedCheckpoint>> OpenByKind(
    const std::string& path, FolderOpener open_folder
) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return Status::IOError("no such file or folder");
  if (std::filesystem::is_directory(status)) return open_folder(path);
  const std::string suffix = std::filesystem::path(path).extension().string();
  if (std::find(kPickleSuffixes.begin(), kPickleSuffixes.end(), suffix) != kPickleSuffixes.end()) {
    return Status::NotImplemented(
        "files of the kind ",
        suffix,
        " can run code when they are loaded and are refused; supported: GGUF files and folders "
        "with safetensors"
    );
  }
  if (suffix == ".safetensors") {
    return Status::Invalid(
        "safetensors hold weights alone: name the folder that has config.json, too"
    );
  }
  return OpenGguf(path);
}

Result<std::shared_ptr<const Checkpoint>> OpenNamed(
    const std::string& path, FolderOpener open_folder
) {
  auto opened = OpenByKind(path, open_folder);
  if (!opened.ok()) return InFile(path, opened.status());
  opened.ValueUnsafe()->path = path;
  return std::shared_ptr<const Checkpoint>(opened.MoveValueUnsafe());
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& path) {
  return OpenNamed(path, OpenFolder);
}

Result<std::shared_ptr<const Checkpoint>> Checkpoint::OpenTokenizer(const std::string& path) {
  return OpenNamed(path, OpenTokenizerFolder);
}

const TensorView* MappedCheckpoint::Find(std::string_view name) const {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

void MappedCheckpoint::Identify(std::string_view headers) {
  constexpr std::size_t kSamples = 64;
  constexpr std::size_t kSampleBytes = 4096;
  size_bytes = 0;
  hash = XXH3_64bits(headers.data(), headers.size());
  for (const auto& file : files) {
    const auto bytes = file->bytes();
    size_bytes += bytes.size();
    const std::size_t step = std::max(bytes.size() / kSamples, kSampleBytes);
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      const auto part = bytes.subspan(at, std::min(kSampleBytes, bytes.size() - at));
      hash = XXH3_64bits_withSeed(part.data(), part.size(), hash);
    }
  }
}

void MappedCheckpoint::AddStopToken(std::int32_t token) {
  if (std::find(stop_tokens.begin(), stop_tokens.end(), token) == stop_tokens.end()) {
    stop_tokens.push_back(token);
  }
}

Status InFile(const std::string& path, const Status& status) {
  return status.WithMessage(path, ": ", status.message());
}

bool EndsTurn(std::string_view token) {
  constexpr std::array<std::string_view, 10> kTexts = {
      "<|endoftext|>",
      "<|im_end|>",
      "<|eot_id|>",
      "<|eom_id|>",
      "<|end_of_text|>",
      "<|end|>",
      "<end_of_turn>",
      "<|endofturn|>",
      "<|end_of_turn|>",
      "<|eot|>"
  };
  return std::find(kTexts.begin(), kTexts.end(), token) != kTexts.end();
}

}  // namespace millstream
