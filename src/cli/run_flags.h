// SPDX-License-Identifier: Apache-2.0
// What the commands share that run a job.

#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "cli/commands.h"
#include "job/job.h"

namespace millstream {

struct RunFlags {
  JobOptions job;
  std::vector<std::string> vars, sets;
  std::string progress = "auto", row;
  bool dry_run = false;
  // On a Ray cluster:
  bool on_ray = false, allow_unauthenticated_ray = false;
  std::string ray_address, on_interrupt = "stop";
  int drain_seconds = 25;
};

/// A whole number, at least 1.
CLI::Validator AtLeastOne();
/// A path that a shell's empty variable did not take away.
CLI::Validator NotEmpty();

/// Adds the flags of a job on a Ray cluster.
void AddRayFlags(CLI::App& run, RunFlags& flags);
/// Has the job run on the cluster that the flags say. Needs a Python that has Ray.
Result<JobReport> RunOnRay(
    const RunFlags& flags, JobMonitor& monitor, const Say& say, std::stop_token stop
);

/// Adds the flags that every job has. Returns --dry-run.
CLI::Option* AddRunFlags(CLI::App& run, RunFlags& flags);
/// Runs, previews or describes the job that the flags say, and returns the exit code.
int RunWithFlags(RunFlags& flags, CommandContext& context);

}  // namespace millstream
