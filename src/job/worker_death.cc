// SPDX-License-Identifier: Apache-2.0
#include "job/worker_death.h"

#include <csignal>

#include "engine/flight_recorder.h"
#include "fmt/format.h"
#include "job/job.h"

namespace millstream {

WorkerDeath DeathOf(const ChildProcess::Exit& exit, bool for_want_of_memory) {
  switch (exit.signal) {
    case 0: {
      const bool was_stopped = exit.code == static_cast<int>(ExitCode::kStopped);
      if (exit.code == 0 || was_stopped) return {};
      return {fmt::format("exit code {}", exit.code), true};
    }
    case SIGKILL:
      if (for_want_of_memory) return {"SIGKILL for want of memory", true};
      return {SignalName(exit.signal), false};
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT:
    case SIGSYS:
    case SIGTRAP:
      return {SignalName(exit.signal), true};
    default:
      return {SignalName(exit.signal), false};
  }
}

}  // namespace millstream
