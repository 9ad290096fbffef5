// SPDX-License-Identifier: Apache-2.0
// Whether an answer has run away: goes on and on in white space, or repeats itself.
//
// The numbers are such that what a person may want is left alone: a ruler, a table, a small matrix
// of zeros.

#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace millstream {

/// Follows one answer, token by token. A pure function of its tokens.
class RunawayGuard {
 public:
  /// The last so many tokens have added nothing but white space.
  static constexpr std::int64_t kWhiteSpaceTokens = 64;
  /// The answer's end is one block of tokens so many times, and so many tokens in all.
  static constexpr std::int64_t kRepeats = 16;
  static constexpr std::int64_t kRepeatedTokens = 256;
  static constexpr std::int64_t kLongestBlock = 64;

  /// Takes the last token of `answer`, which has the text `bytes`.
  void Take(std::span<const std::int32_t> answer, std::string_view bytes);

  bool is_white_space() const { return white_space_ >= kWhiteSpaceTokens; }
  bool is_repetition() const { return is_repetition_; }

 private:
  std::int64_t white_space_ = 0;  // tokens of it at the end
  // Tokens at the end that equal the one so many before them, by how many: period - 1.
  std::array<std::int64_t, kLongestBlock> equal_ = {};
  bool is_repetition_ = false;
};

}  // namespace millstream
