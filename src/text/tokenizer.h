// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, on the `tokenizers` crate.
//
// Text from rows never becomes a special token. When a template prints a row's value, marks are put
// into its output where a special token could begin or go on (template.h does that); Encode never
// lets a special token span or touch a mark, and takes the marks out.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millstream {

/// The vocabulary of a GGUF file, as its metadata has it (tokenizer.ggml.*). Views into the
/// caller's memory.
struct GgufVocabulary {
  std::string_view model;  // "gpt2", "llama"
  std::string_view pre;    // "smollm", "qwen2", ...
  std::span<const std::string_view> tokens;
  std::span<const std::int32_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 6 byte
  std::span<const float> scores;
  std::span<const std::string_view> merges;
  std::optional<std::int32_t> bos_token;
  std::optional<std::int32_t> eos_token;
  std::optional<std::int32_t> unknown_token;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = true;
};

/// Immutable and thread-safe.
class Tokenizer {
 public:
  /// Takes the text of a tokenizer.json.
  static Result<std::shared_ptr<const Tokenizer>> FromJson(std::string_view tokenizer_json);
  /// Fails with what is supported if the vocabulary's kind is not.
  static Result<std::shared_ptr<const Tokenizer>> FromGguf(const GgufVocabulary& vocabulary);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Encodes text in which marks (text/marks in template.h) may stand. Special tokens in unmarked
  /// text are parsed. `add_special_tokens`: also what the tokenizer puts around a text (BOS, say).
  Result<std::vector<std::int32_t>> Encode(std::string_view marked, bool add_special_tokens) const;

  /// Text of the tokens; special ones left out if `skip_special_tokens`. Malformed UTF-8 becomes
  /// U+FFFD.
  Result<std::string> Decode(std::span<const std::int32_t> tokens, bool skip_special_tokens) const;

  /// The raw bytes that one token stands for within a text (may be part of a UTF-8 character);
  /// empty for special tokens.
  std::string_view TokenBytes(std::int32_t token) const;

  std::int32_t vocabulary_size() const;
  std::optional<std::int32_t> TokenId(std::string_view token) const;
  bool IsSpecial(std::int32_t token) const;
  /// The special tokens' texts, joined by '\n': what Expression::Compile and MarkAll ask for.
  std::string_view special_tokens() const;
  /// The text of a special or ordinary token as the vocabulary writes it.
  std::string TokenText(std::int32_t token) const;

  /// For grammar.h: the Rust object behind this one.
  const void* handle() const { return handle_; }

 private:
  explicit Tokenizer(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace millstream
