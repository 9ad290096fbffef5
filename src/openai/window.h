// SPDX-License-Identifier: Apache-2.0
// How many requests to have under way. Time is an argument.

#pragma once

#include <chrono>
#include <cstdint>

namespace millstream {

/// Tries more at a time, keeps that if more gets done, goes back if not and tries again later.
/// Doubles while that gets much more done; shrinks when a server asks for less, and grows slowly
/// where it did.
class SendWindow {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `fixed` > 0: always so many. But never more than `most`.
  SendWindow(std::int64_t fixed, std::int64_t most);

  std::int64_t size() const { return size_; }
  /// A request was answered; `work` is what that got done, in tokens. So many were under way when
  /// one was last sent.
  void Answered(Time now, std::int64_t work, std::int64_t under_way);
  /// A server wants fewer: counts once for all requests that were under way then.
  void Busy();

 private:
  bool doubles() const { return is_fast_ && base_ < ceiling_; }
  void Resize(double size);
  void Judge(double rate);

  const bool is_fixed_;
  const std::int64_t most_;
  std::int64_t size_;
  // A measurement begins when those have ended that were under way when the size changed.
  std::int64_t before_ = 0;
  Time since_{};
  std::int64_t ended_ = 0, work_ = 0;  // in it
  std::int64_t under_way_ = 0;         // summed up over those that ended
  std::int64_t base_;        // the size that is kept; size_ is larger while more are tried
  double base_rate_ = 0;     // its work a second
  bool is_fast_ = true;      // more get much more done
  std::int64_t ceiling_;     // where a server may ask for less, by what it said
  bool has_shrunk_ = false;  // and not grown since
  std::int64_t left_ = 0;    // replies until another Busy() counts
};

}  // namespace millstream
