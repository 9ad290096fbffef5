// SPDX-License-Identifier: Apache-2.0
// Tells a hang from slow work: no progress for a limit, or for twenty steps if those are longer.
//
// Time is an argument. Owned by one thread.

#pragma once

#include <array>
#include <chrono>
#include <cstddef>

#include "engine/engine.h"

namespace millstream {

class Watchdog {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  explicit Watchdog(Duration limit) : limit_(limit) {}

  /// Looks once: whether an engine with these counters hangs. Call it often: at most an eighth of
  /// the limit passes between two looks, as it counts, so that a process that was stopped itself
  /// finds no hang when it wakes.
  bool IsHung(TimePoint now, bool is_busy, const EngineStats& stats);

 private:
  void CountSteps(std::int64_t steps);

  const Duration limit_;
  TimePoint last_look_{};
  Duration idle_{};  // since the last progress
  EngineStats last_;
  std::array<Duration, 31> step_times_{};
  std::size_t num_steps_ = 0;
  Duration median_step_{};
};

}  // namespace millstream
