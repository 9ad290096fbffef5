// SPDX-License-Identifier: Apache-2.0
// The vocabulary and chat template of the model package that scripts/setup installs, for this
// folder's tests.

#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace millstream {

/// Reads the metadata of a GGUF file that is known to be well formed.
class SmolLm2Vocabulary {
 public:
  static const SmolLm2Vocabulary& Get() {
    static const SmolLm2Vocabulary vocabulary;
    return vocabulary;
  }

  GgufVocabulary view() const {
    return {
        .model = "gpt2",
        .pre = "smollm",
        .tokens = tokens_,
        .token_types = types_,
        .scores = {},
        .merges = merges_,
        .bos_token = 1,
        .eos_token = 2,
        .unknown_token = 0,
    };
  }

  std::shared_ptr<const Tokenizer> tokenizer() const {
    static const auto tokenizer = Tokenizer::FromGguf(view()).ValueOrDie();
    return tokenizer;
  }
  std::string_view chat_template() const { return chat_template_; }

 private:
  SmolLm2Vocabulary() {
    const std::filesystem::path packages = std::filesystem::path(MS_SOURCE_DIR) / ".deps/venv/lib";
    for (const auto& entry : std::filesystem::recursive_directory_iterator(packages)) {
      if (entry.path().extension() != ".gguf") continue;
      std::ifstream file(entry.path(), std::ios::binary);
      bytes_.resize(8 << 20);  // the metadata stand first
      file.read(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
      break;
    }
    at_ = 16;
    for (auto left = Number<std::uint64_t>(); left > 0; --left) {
      const auto key = Text();
      const auto type = Number<std::uint32_t>();
      if (key == "tokenizer.chat_template") {
        chat_template_ = Text();
      } else if (type == kArray) {
        Array(key);
      } else {
        Skip(type);
      }
    }
  }

  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string_view Text() {
    const auto size = Number<std::uint64_t>();
    at_ += size;
    return {bytes_.data() + at_ - size, size};
  }

  void Skip(std::uint32_t type) {
    constexpr std::size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == kString) Text();
    at_ += kSizes[type];
  }

  void Array(std::string_view key) {
    const auto type = Number<std::uint32_t>();
    for (auto left = Number<std::uint64_t>(); left > 0; --left) {
      if (key == "tokenizer.ggml.tokens") {
        tokens_.push_back(Text());
      } else if (key == "tokenizer.ggml.merges") {
        merges_.push_back(Text());
      } else if (key == "tokenizer.ggml.token_type") {
        types_.push_back(Number<std::int32_t>());
      } else {
        Skip(type);
      }
    }
  }

  static constexpr std::uint32_t kString = 8;
  static constexpr std::uint32_t kArray = 9;

  std::string bytes_;
  std::size_t at_ = 0;
  std::string chat_template_;
  std::vector<std::string_view> tokens_;
  std::vector<std::string_view> merges_;
  std::vector<std::int32_t> types_;
};

}  // namespace millstream
