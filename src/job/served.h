// SPDX-License-Identifier: Apache-2.0
// Models that servers run: from what the job file says of them to the engine that asks them.

#pragma once

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "engine/engine.h"
#include "job/job.h"
#include "pipeline/generate.h"
#include "pipeline/spec.h"

namespace millstream {

/// What binding a served model takes.
struct ServedBinding {
  std::string folder;                    // of the job file
  bool truncates = false;                // a step cuts its prompts to the context
  const PlannedModel* pinned = nullptr;  // what a plan knows already
  std::int64_t now_unix_seconds = 0;
  std::chrono::milliseconds patience{0};  // for a server that is not there yet
  Say say;
  std::stop_token stop;
};

/// Binds a model of which only servers know more: they are asked what the job file and the plan
/// leave open. `planned` gets what a plan pins.
Result<BoundModel> BindServed(
    const ModelSpec& spec, const ServedBinding& binding, PlannedModel& planned
);

/// Starts the engine of a bound model. Waits for a server that it launches to be ready.
Result<std::unique_ptr<Engine>> StartServed(
    const PreparedJob& job, const std::string& key, const Say& say, std::stop_token stop
);

}  // namespace millstream
