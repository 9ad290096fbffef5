// SPDX-License-Identifier: Apache-2.0
// Why a worker's process ended.

#pragma once

#include <string>

#include "engine/child_process.h"

namespace millstream {

struct WorkerDeath {
  std::string how;  // empty: it ended well
  bool may_be_a_row = false;
};

/// `for_want_of_memory`: the kernel has killed processes of the machine meanwhile. A signal that
/// others send (a person's kill -9) is no row's fault, as with an engine's process.
WorkerDeath DeathOf(const ChildProcess::Exit& exit, bool for_want_of_memory);

}  // namespace millstream
