// SPDX-License-Identifier: Apache-2.0
// A job on a cluster, in two halves: its coordinator, whose workers are on any machines, and the
// command that a person started, which shows what the coordinator does. Both talk to a carrier at
// the other end of a socket (cluster_wire.h).

#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "job/job.h"
#include "nlohmann/json.hpp"

namespace millstream {

/// What `millstream coordinator` does: runs the job that the carrier at the other end of standard
/// input begins, by the workers that it brings, and tells how it ended. Fails if the carrier goes.
Status HostCoordinator(Storage& storage);

struct ClusterOptions {
  std::vector<std::string> carrier;  // its command: an absolute path, then arguments
  nlohmann::ordered_json settings;   // for the carrier; `output` is added
  bool detaches = false;             // at a stop the job goes on; else it stops
};

/// Has a job run on a cluster, and shows how it goes, until it has ended.
Result<JobReport> RunOnCluster(
    const ClusterOptions& cluster,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

}  // namespace millstream
