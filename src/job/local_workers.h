// SPDX-License-Identifier: Apache-2.0
// Workers as processes on this machine, children of the driver.

#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "job/coordination.h"
#include "job/job.h"

namespace millstream {

/// The command that starts a worker: its output, epoch, number and threads come behind it.
std::vector<std::string> WorkerCommand();
/// What that command does: a worker whose coordinator is at the other end of its standard input.
Status HostWorker(
    Storage& storage,
    const std::vector<std::string>& arguments,
    const Say& say,
    std::stop_token stop
);

/// Runs a job by so many workers until nothing is left to do; one that dies is replaced.
Status RunByLocalWorkers(
    Coordination& coordination,
    const PreparedJob& job,
    int count,
    const Say& say,
    std::stop_token drain,
    std::stop_token stop
);

}  // namespace millstream
