// SPDX-License-Identifier: Apache-2.0
// An engine in a child process, so that a request that kills it costs the others one more attempt.
//
// When the child dies, the cause is what this side saw: a fatal signal, an exit code, the watchdog,
// the kernel's or its own want of memory. With a cause, the requests in flight are suspects: new
// ones wait while they run again in ever smaller groups (bisection.h), and one that was alone at
// two deaths completes with the error crash, hang or oom. Without a cause (a kill -9) nobody is
// blamed and what was in flight runs again. Each request completes once.
//
// After five deaths without a finished request a canary runs alone: a request that finished
// before. If the engine dies of that too, Poll returns EngineBroken.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace millstream {

struct HostedEngineOptions {
  /// The child's command line: a program that calls HostEngine (engine_host.h).
  std::vector<std::string> command;
  std::chrono::milliseconds hang_limit{60'000};  // without progress, or 20 steps if those take more
  std::chrono::milliseconds start_limit{1'800'000};  // until it is ready
  std::chrono::milliseconds grace{10'000};           // for a hung child to die of SIGABRT
  std::chrono::milliseconds tick{100};               // how often the watchdog looks
  /// In place of the steady clock and of the control group's count, for tests.
  std::function<std::chrono::steady_clock::time_point()> now;
  std::function<std::int64_t()> oom_kills;
};

/// Starts the child and waits until it is ready, or returns why it is not.
Result<std::unique_ptr<Engine>> MakeHostedEngine(HostedEngineOptions options);

}  // namespace millstream
