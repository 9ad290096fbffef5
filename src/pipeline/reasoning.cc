// SPDX-License-Identifier: Apache-2.0
#include "pipeline/reasoning.h"

#include <cstddef>

namespace millstream {
namespace {

std::string_view Trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace

bool PromptEndsReasoning(std::string_view prompt) {
  return Trimmed(prompt).ends_with(kThinkEnd);
}

bool AnswerHasBegun(std::string_view prompt, std::string_view text) {
  return PromptEndsReasoning(prompt) || text.find(kThinkEnd) != std::string_view::npos;
}

SplitText SplitReasoning(std::string_view prompt, std::string_view text) {
  if (PromptEndsReasoning(prompt)) return {{}, text};
  std::string_view rest = text;
  const bool begins_here = Trimmed(rest).starts_with(kThinkBegin);
  if (begins_here) rest.remove_prefix(rest.find(kThinkBegin) + kThinkBegin.size());
  const std::size_t end = rest.find(kThinkEnd);
  if (end != std::string_view::npos) {
    return {Trimmed(rest.substr(0, end)), Trimmed(rest.substr(end + kThinkEnd.size()))};
  }
  const bool began = begins_here || Trimmed(prompt).ends_with(kThinkBegin);
  return began ? SplitText{Trimmed(rest), {}} : SplitText{{}, text};
}

}  // namespace millstream
