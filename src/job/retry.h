// SPDX-License-Identifier: Apache-2.0
// Runs chosen rows of an output again, the failed ones by default, and puts the parts that gain in
// the place of the old ones.

#pragma once

#include <cstdint>
#include <map>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "job/job.h"
#include "storage/storage.h"

namespace millstream {

struct RetryOptions {
  std::string output;  // as a person gives it
  std::string file;    // a mended job file; empty: the one that the rows were made by
  std::vector<std::pair<std::string, std::string>> vars, sets;  // as SpecOverrides has them
  /// An error code, or an expression over a row's columns; empty: every failed row.
  std::string where;
  bool reseed = false;   // other random draws
  bool dry_run = false;  // say what would be run
  RunnerOptions runner;
  std::stop_token drain;
  EngineMaker make_engine;  // in place of the native one, for tests
};

struct RetryReport {
  ExitCode exit = ExitCode::kComplete;
  std::string output;
  RowCounts rows;                             // of the whole output, afterwards
  std::int64_t chosen = 0;                    // rows that were run again
  std::map<std::string, std::int64_t> codes;  // of them, by their code; "ok" for others
  std::int64_t gained = 0;                    // of them, now ok or skipped
  std::int64_t parts_replaced = 0;
  std::map<std::string, JobMonitor::ErrorSample> errors;  // of this time
  std::string nothing;                                    // why nothing was done, or empty
};

/// Invalid if the mended spec gives other columns or reads another input. If nothing changed that
/// could change the rows' answers, nothing is run and the report says so.
Result<RetryReport> RetryRows(
    Storage& storage,
    const RetryOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

/// Removes what retries replaced. Cancelled if a run is at work.
Status PruneOutput(Storage& storage, const std::string& output);

}  // namespace millstream
