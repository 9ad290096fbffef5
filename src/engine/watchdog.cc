// SPDX-License-Identifier: Apache-2.0
#include "engine/watchdog.h"

#include <algorithm>

namespace millstream {

bool Watchdog::IsHung(TimePoint now, bool is_busy, const EngineStats& stats) {
  const Duration passed = std::min(now - last_look_, limit_ / 8);
  last_look_ = now;
  idle_ += passed;
  const bool progress = stats.steps != last_.steps ||
                        stats.completion_tokens != last_.completion_tokens ||
                        stats.requests_finished != last_.requests_finished;
  if (is_busy && progress) CountSteps(stats.steps - last_.steps);
  last_ = stats;
  if (!is_busy || progress) idle_ = {};
  return idle_ > std::max(limit_, 20 * median_step_);
}

void Watchdog::CountSteps(std::int64_t steps) {
  if (steps <= 0) return;
  step_times_[num_steps_++ % step_times_.size()] = idle_ / steps;
  auto times = step_times_;
  const std::size_t count = std::min(num_steps_, times.size());
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(count / 2);
  std::nth_element(times.begin(), middle, times.begin() + static_cast<std::ptrdiff_t>(count));
  median_step_ = *middle;
}

}  // namespace millstream
