// SPDX-License-Identifier: Apache-2.0
// Workers as processes on this machine, children of the driver.

#pragma once

#include <stop_token>

#include "base/status.h"
#include "job/coordination.h"
#include "job/job.h"

namespace millstream {

/// What `millstream worker` does: a worker whose driver is at the other end of its standard input.
/// `make_engine` as in WorkerOptions.
Status HostWorker(
    Storage& storage, const EngineMaker& make_engine, const Say& say, std::stop_token stop
);

/// Runs a job by `options.workers` workers until nothing is left to do; one that dies is replaced.
/// `options` are the run's. At a stop they make durable what they have, and end.
Status RunByLocalWorkers(
    Coordination& coordination,
    const PreparedJob& job,
    const JobOptions& options,
    const Say& say,
    std::stop_token stop
);

}  // namespace millstream
