// SPDX-License-Identifier: Apache-2.0
// What stands of a job, and which rows failed, from its files alone.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arrow/io/interfaces.h"
#include "base/status.h"
#include "job/output.h"

namespace millstream {

/// Failures of one code.
struct ErrorGroup {
  std::int64_t count = 0;
  std::vector<std::string> samples;  // at most 3: "glosses.jsonl:17 answer: message"
};

struct JobStatus {
  std::string output, name;
  bool complete = false;  // success.json stands and covers the plan
  std::string holder;     // who runs it now: "process 17 on host, since ..."; or empty
  std::int64_t rows_total = 0, splits = 0, parts = 0;
  RowCounts rows;  // committed
  std::int64_t rows_in_log = 0;
  std::int64_t drivers = 0;          // that worked on it
  double first_at = 0, last_at = 0;  // seconds since 1970 of the first and last entry; 0: none
  double rows_per_second = 0;        // of the last driver, by its journal; 0: not known
  std::string last_end;  // why the last driver ended: "stopped on request", ...; or empty
  std::map<std::string, ErrorGroup> errors;  // by code
};

Result<JobStatus> StatusOf(Storage& storage, const std::string& path);

/// Writes the failed rows, as JSON lines of the output's columns, in input order. Returns how many.
Result<std::int64_t> WriteErrors(
    Storage& storage, const std::string& path, std::shared_ptr<arrow::io::OutputStream> sink
);

/// "process 17 on host, since 2026-11-27T20:00:00Z", of what a lock's holder left.
std::string HolderInWords(const std::string& holder);

}  // namespace millstream
