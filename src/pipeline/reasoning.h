// SPDX-License-Identifier: Apache-2.0
// What a model thinks before it answers: `<think>...</think>` at the answer's beginning. A chat
// template may write the first of the two into the prompt, or both, so that there is none.

#pragma once

#include <string_view>

namespace millstream {

inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

struct SplitText {
  std::string_view reasoning, answer;
};

/// Whether the prompt itself ends the reasoning, so that the answer begins at once.
bool PromptEndsReasoning(std::string_view prompt);

/// Whether the answer has begun in what the model wrote after `prompt`.
bool AnswerHasBegun(std::string_view prompt, std::string_view text);

/// The parts of what the model wrote, trimmed if it was thinking. A text cut within the reasoning
/// is all reasoning.
SplitText SplitReasoning(std::string_view prompt, std::string_view text);

}  // namespace millstream
