// SPDX-License-Identifier: Apache-2.0
// Whether a whole answer satisfies its constraint, for engines that are not known to enforce it:
// JSON Schema by the `jsonschema` crate, regular expressions and Lark grammars by `llguidance`.

#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "text/grammar.h"

namespace millstream {

/// A constraint to check answers against. Immutable and thread-safe.
class AnswerCheck {
 public:
  /// Invalid, with the reason, if the source is no supported constraint.
  static Result<std::shared_ptr<const AnswerCheck>> Make(
      Grammar::Kind kind, std::string_view source
  );
  ~AnswerCheck();
  AnswerCheck(const AnswerCheck&) = delete;
  AnswerCheck& operator=(const AnswerCheck&) = delete;

  /// Invalid, saying where, if the answer leaves the constraint. JSON may have free white space,
  /// and its keys any order.
  Status Check(std::string_view answer) const;

 private:
  explicit AnswerCheck(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace millstream
