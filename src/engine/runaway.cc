// SPDX-License-Identifier: Apache-2.0
#include "engine/runaway.h"

#include <algorithm>

namespace millstream {

void RunawayGuard::Take(std::span<const std::int32_t> answer, std::string_view bytes) {
  const bool is_white = bytes.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
  white_space_ = is_white ? white_space_ + 1 : 0;
  is_repetition_ = false;
  const auto length = std::ssize(answer);
  for (std::int64_t period = 1; period <= std::min(kLongestBlock, length - 1); ++period) {
    const auto at = answer.rbegin();
    std::int64_t& equal = equal_[static_cast<std::size_t>(period - 1)];
    equal = at[0] == at[period] ? equal + 1 : 0;
    // With the first block, which equals nothing before it.
    const std::int64_t tokens = equal + period;
    is_repetition_ |= tokens >= std::max(kRepeatedTokens, kRepeats * period);
  }
}

}  // namespace millstream
