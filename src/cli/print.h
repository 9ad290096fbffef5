// SPDX-License-Identifier: Apache-2.0
// What people see: the progress of a run, its summary, rows as a table.

#pragma once

#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <string>
#include <thread>

#include "arrow/record_batch.h"
#include "cli/commands.h"
#include "job/job.h"

namespace millstream {

enum class ProgressStyle { kAuto, kJson, kNone };

/// Shows a monitor's progress on stderr until it is destroyed: a bar on a terminal, else a line now
/// and then, or one JSON event a line.
class ProgressPrinter {
 public:
  ProgressPrinter(const JobMonitor& monitor, ProgressStyle style);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

 private:
  void Loop(std::stop_token stop);

  const JobMonitor& monitor_;
  const ProgressStyle style_;
  std::jthread thread_;
};

/// Columns of the terminal on a file descriptor; 120 if it is none.
std::size_t TerminalWidth(int descriptor);
/// "61,440".
std::string Grouped(std::int64_t number);
/// Splits each NAME=VALUE; complains and returns false if one is none.
bool SplitPairs(
    const std::vector<std::string>& pairs, std::vector<std::pair<std::string, std::string>>* out
);
/// Logs what a job says of itself; "warning: ..." as a warning.
void SayToPerson(const std::string& message);
/// Prints a failed operation and returns its exit code.
int Complain(const Status& status);
void PrintSummary(const JobReport& report);
/// The summary as the last event of `--progress json`.
void PrintSummaryEvent(const JobReport& report);
/// Prints up to `limit` rows, a column a field; long values are cut to the terminal.
void PrintTable(
    const arrow::Schema& schema, const arrow::RecordBatchVector& batches, std::int64_t limit
);
/// Prints each row as lines of "column: value", uncut.
void PrintRecords(const arrow::Schema& schema, const arrow::RecordBatchVector& batches);

}  // namespace millstream
