// SPDX-License-Identifier: Apache-2.0
// How many requests to have under way. Time is an argument.

#pragma once

#include <chrono>
#include <cstdint>

namespace millstream {

/// Grows while more requests at a time get more done, holds when they do not, and shrinks when a
/// server asks for less. A measurement lasts until as many requests have ended as fit, twice.
class SendWindow {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `fixed` > 0: always so many.
  explicit SendWindow(std::int64_t fixed);

  std::int64_t size() const { return size_; }
  /// A request was answered; `work` is what that got done, in tokens. `under_way` counts it.
  void Answered(Time now, std::int64_t work, std::int64_t under_way);
  /// A server wants fewer: counts once for all requests that were under way then.
  void Busy(Time now);

 private:
  void Begin(Time now);

  const bool is_fixed_;
  std::int64_t size_;
  bool has_begun_ = false;
  Time since_;              // of this measurement
  std::int64_t ended_ = 0;  // requests in it
  std::int64_t work_ = 0;
  std::int64_t under_way_ = 0;  // summed up over them
  double best_rate_ = 0;        // work a second, of the measurement before
  std::int64_t left_ = 0;       // replies until another Busy() counts
};

}  // namespace millstream
