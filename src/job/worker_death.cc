// SPDX-License-Identifier: Apache-2.0
#include "job/worker_death.h"

#include <csignal>

#include "engine/flight_recorder.h"
#include "fmt/format.h"
#include "job/job.h"

namespace millstream {

WorkerDeath DeathOf(const ChildProcess::Exit& exit, bool for_want_of_memory) {
  if (exit.signal == 0) {
    const bool was_stopped = exit.code == static_cast<int>(ExitCode::kStopped);
    if (exit.code == 0 || was_stopped) return {};
    return {fmt::format("exit code {}", exit.code), true};
  }
  if (exit.signal == SIGKILL && for_want_of_memory) return {"SIGKILL for want of memory", true};
  return {SignalName(exit.signal), IsOfItsOwnMaking(exit.signal)};
}

}  // namespace millstream
