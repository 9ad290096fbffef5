// SPDX-License-Identifier: Apache-2.0
// A job that goes on: whether its spec and its input are still those of the plan, which changes
// were accepted, and what input came since.

#pragma once

#include <stop_token>

#include "base/status.h"
#include "job/job.h"

namespace millstream {

/// The plan of a job whose ledger stands, its models those of the current spec.
Result<Plan> PlannedBefore(const Ledger& ledger);

/// Invalid, with what can be done, if this machine's native models give other answers than the
/// driver's, and the job minds.
Status CheckComputesAlike(const PreparedJob& job, const Plan& planned);

/// Compares the job with what was planned, and goes on with it. Invalid if the spec changed and
/// that was not accepted; a Conflict if the input changed.
Status ResumePlan(
    PreparedJob& job, Plan planned, const JobOptions& options, const Say& say, std::stop_token stop
);

/// Invalid if the bound job's rows have other columns than those that stand.
Status CheckSameColumns(const PreparedJob& job);

/// The current spec's record, as job.json and SPEC_ACCEPT hold it: spec, models, file.
nlohmann::ordered_json SpecRecord(const PreparedJob& job, const SpecOverrides& overrides);

}  // namespace millstream
