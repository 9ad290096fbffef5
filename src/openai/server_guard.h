// SPDX-License-Identifier: Apache-2.0
// The process between a job and a server that it launched: keeps the server's log, tells how it
// died, and leaves nothing of it behind, even if the job's process is killed.

#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace millstream {

struct GuardedServer {
  std::vector<std::string> command;
  std::string folder;                         // to run it in
  std::string log;                            // what it prints; an older half lies at `log`.1
  std::vector<std::string> secret_variables;  // of the environment: the log shows none of them
};

/// The argument that tells a guard what to start, for GuardServer() in the child.
std::string GuardArgument(const GuardedServer& server);

/// What a guard is told over its socket; the socket's end means kKill.
enum class GuardOrder : char {
  kEnd = 'e',  // SIGTERM, and SIGKILL to what is still there five seconds later
  kKill = 'k'
};

/// Runs a ChildProcess (engine/child_process.h) as a guard, until nothing of the server is left.
/// Says on the socket, before it ends, in one line: "exited 3", "killed 11" or "not started ...".
Status GuardServer(const std::string& argument);

}  // namespace millstream
