// SPDX-License-Identifier: Apache-2.0
// Constrained decoding on the `llguidance` crate: which tokens may come next.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace millstream {

/// A compiled constraint. Immutable and thread-safe; one serves any number of requests.
class Grammar {
 public:
  enum class Kind {
    kJsonSchema,
    kRegex,
    kLark,
    kChoice
  };  // kChoice: a JSON list of strings, taken literally
  ~Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  /// What it was compiled from: enough to compile it again, in another process say.
  Kind kind() const { return kind_; }
  const std::string& source() const { return source_; }

  const void* handle() const { return handle_; }

 private:
  friend class GrammarCompiler;
  Grammar(void* handle, Kind kind, std::string_view source)
      : handle_(handle), kind_(kind), source_(source) {}
  void* handle_;
  Kind kind_;
  std::string source_;
};

/// Compiles constraints for one tokenizer; keeps the 256 most recent. Thread-safe.
class GrammarCompiler {
 public:
  /// `stop_tokens` end a complete answer.
  static Result<std::unique_ptr<GrammarCompiler>> Make(
      std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> stop_tokens
  );
  ~GrammarCompiler();
  /// Invalid, with the reason in our words, if the source is not a supported constraint; compile
  /// time is bounded. JSON comes without free white space.
  Result<std::shared_ptr<const Grammar>> Compile(Grammar::Kind kind, std::string_view source) const;

 private:
  struct State;
  GrammarCompiler();
  std::unique_ptr<State> state_;
};

/// Where one answer stands in its grammar. Owned by one sequence; not thread-safe.
class GrammarMatcher {
 public:
  static Result<std::unique_ptr<GrammarMatcher>> Make(const Grammar& grammar);
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher&) = delete;
  GrammarMatcher& operator=(const GrammarMatcher&) = delete;

  /// Sets bit t of `mask` (32 tokens a word, ceil(vocabulary/32) words) for each token that may
  /// come next. A stop token may come where the answer may end.
  Status Mask(std::span<std::uint32_t> mask);
  /// Takes the chosen token. Invalid if the mask did not allow it.
  Status Accept(std::int32_t token);
  /// Whether the answer may end here; whether it must.
  bool IsComplete() const;
  bool IsStopped() const;

 private:
  explicit GrammarMatcher(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace millstream
