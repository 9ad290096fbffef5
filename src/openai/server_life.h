// SPDX-License-Identifier: Apache-2.0
// When a launched server is started, asked whether it is ready, taken for hung, and given up. No
// process, no clock: time is an argument.

#pragma once

#include <chrono>
#include <optional>

namespace millstream {

struct ServerLifeOptions {
  std::chrono::milliseconds check_interval{250};                 // until it is ready
  std::chrono::milliseconds start_limit{std::chrono::hours(2)};  // big models take long
  // It hangs if it replies to nothing for so long, and then not to a probe either.
  std::chrono::milliseconds silence{std::chrono::minutes(1)};
  std::chrono::milliseconds probe_limit{std::chrono::minutes(10)};
  std::chrono::milliseconds backoff_first{1000};  // from its second death in a row on
  std::chrono::milliseconds backoff_max{std::chrono::minutes(1)};
  int deaths_max = 5;  // without a reply in between
};

/// For one thread.
class ServerLife {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Action { kNone, kStart, kCheck, kProbe, kKill };

  explicit ServerLife(const ServerLifeOptions& options) : options_(options) {}

  /// What to do now. A check is to be answered by Checked(), a start that fails by Died().
  Action Next(Time now);
  /// When Next() may give something though nothing has happened.
  std::optional<Time> NextTime() const;

  void Checked(bool is_ready, Time now);
  /// Requests are under way.
  void Asked(Time now);
  /// To a request or a probe.
  void Replied();
  void Died(Time now);

  bool is_ready() const { return state_ == State::kReady; }
  /// Whether it was ready in this life or an earlier one.
  bool has_been_ready() const { return has_been_ready_; }
  /// Whether Next() said kKill in this life.
  bool is_killed() const { return state_ == State::kKilled; }
  bool is_given_up() const { return deaths_ >= options_.deaths_max; }
  /// Since when it is not ready, or silent.
  Time since() const { return since_; }

 private:
  enum class State { kDown, kStarting, kReady, kKilled };
  const ServerLifeOptions options_;
  State state_ = State::kDown;
  bool has_been_ready_ = false;
  int deaths_ = 0;  // since its last reply
  Time since_{};
  Time next_{};  // to start it, or check it
  bool is_checked_ = false;
  std::optional<Time> asked_at_, probed_at_;  // without a reply since
};

}  // namespace millstream
