// SPDX-License-Identifier: Apache-2.0
// Looking at a job without running it: the plan in words, and one row explained.

#pragma once

#include <stop_token>
#include <string>

#include "base/status.h"
#include "job/job.h"

namespace millstream {

/// Checks everything and says what would be done: files, rows, splits, the output's schema,
/// resolved settings, the first rendered prompts, token counts and errors to expect over a sample.
/// Writes nothing.
Result<std::string> DescribeJob(
    Storage& storage, const JobOptions& options, const Say& say, std::stop_token stop
);

/// One row, run.
struct ExplainedRow {
  std::string prompt;  // of the first generate step, as the model saw it; may be empty
  Preview preview;
};
/// Runs the row that `place`, "FILE:RECORD" with the file as _source names it, stands for. Writes
/// nothing.
Result<ExplainedRow> ExplainRow(
    Storage& storage,
    const JobOptions& options,
    const std::string& place,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

}  // namespace millstream
