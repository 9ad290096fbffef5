// SPDX-License-Identifier: Apache-2.0
// A worker of a job: the pipeline over the rows that it is lent. Its answers go to the job's row
// logs and its parts to their places, on storage that all share; what it holds and has done it
// tells the coordinator. A job without others has one in its driver's process.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/status.h"
#include "job/disk_guard.h"
#include "job/job.h"
#include "storage/storage.h"

namespace millstream {

struct WorkerOptions {
  JobOptions job;           // the file, its text and the overrides of the driver that has begun it
  std::uint32_t epoch = 0;  // of that driver
  std::int64_t number = 0;  // of this life of this worker, at least 2, the epoch's only one
  int threads = 0;          // that it computes with; 0: as many as there are cores
  EngineMaker make_engine;  // in place of the native one, for tests
  std::chrono::milliseconds interval{1000};  // between two reports, at most
};

/// Brings a report to the coordinator, and its answer back (worker_wire.h); waits for it.
using Exchange = std::function<Result<std::string>(std::string_view report)>;

/// Works until nothing is left to do for anyone, until its coordinator tells it to leave, or until
/// it is stopped, or drained by its job's options: then it is Cancelled. What goes wrong with the
/// job is in its last report as well.
Status RunWorker(
    Storage& storage,
    const WorkerOptions& options,
    const Exchange& exchange,
    const Say& say,
    std::stop_token stop
);

/// What a worker shares with a driver that is the same process. All must outlive it.
struct DriversOwn {
  PreparedJob& job;  // begun
  const JobEngines& engines;
  JobMonitor& monitor;
  DiskGuard& guard;
};
/// The same in the driver's process; of `options`, the job is there already. It journals itself
/// what it has published, so that reports wait for no storage.
Status RunOwnWorker(
    Storage& storage,
    const WorkerOptions& options,
    const DriversOwn& driver,
    const Exchange& exchange,
    std::stop_token stop
);

}  // namespace millstream
