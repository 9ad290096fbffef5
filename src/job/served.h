// SPDX-License-Identifier: Apache-2.0
// Models that servers run: from what the job file says of them to the engine that asks them.

#pragma once

#include <chrono>
#include <memory>
#include <stop_token>

#include "base/status.h"
#include "engine/engine.h"
#include "job/job.h"
#include "pipeline/generate.h"
#include "pipeline/spec.h"

namespace millstream {

/// Binds a model of which only servers know more. They are asked what the job file leaves open,
/// unless `pinned` has it, a plan's; waits up to `patience` for one that is not there. `planned`
/// gets what a plan pins.
Result<BoundModel> BindServed(
    const ModelSpec& spec,
    const PlannedModel* pinned,
    std::chrono::milliseconds patience,
    const Say& say,
    std::stop_token stop,
    PlannedModel& planned
);

Result<std::unique_ptr<Engine>> StartServed(
    const ModelSpec& spec, const ServedModel& served, const Say& say
);

}  // namespace millstream
