// SPDX-License-Identifier: Apache-2.0
// What a worker and its coordinator say to each other, as bytes: numbers and texts, whatever they
// travel by. Decoding trusts nothing, as engine/wire.h does.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "job/coordinator.h"
#include "job/job.h"
#include "job/worker.h"
#include "ledger/ledger.h"

namespace millstream {

/// A worker's report with what the driver is to write down and to show.
struct WorkerMessage {
  std::uint32_t epoch = 0;  // of the driver that it works for
  WorkerReport report;
  std::map<std::int64_t, CommittedPart> parts;  // of report.published
  std::vector<JournalEntry> entries;            // for the journal
  std::int64_t num_poison = 0;                  // how many entries of WorkerAnswer::poison it has
  // Of its life so far:
  RowCounts rows;
  std::map<std::string, JobMonitor::ErrorSample> errors;
  EngineStats stats;
  std::int64_t cut_answers = 0;
  /// Why it ends, with the exit code that it asks for; empty: it does not end by a failure.
  std::string failure;
  ExitCode exit = ExitCode::kComplete;
};

/// What it is to do.
struct WorkerAnswer {
  WorkerOrders orders;
  /// POISON entries of the driver's time, in order, without the first that the worker has: to be
  /// noted before the orders are followed.
  std::vector<JournalEntry> poison;
  bool drains = false;  // finish what is begun, give the rest back, and leave
  bool stops = false;   // cut short what is begun, make durable what it has, and leave
};

/// What a worker needs to begin: the same job as its driver's, and who it is.
std::string Encode(const WorkerOptions& options);
Result<WorkerOptions> DecodeWorkerOptions(std::string_view bytes);

std::string Encode(const WorkerMessage& message);
std::string Encode(const WorkerAnswer& answer);
Result<WorkerMessage> DecodeWorkerMessage(std::string_view bytes);
Result<WorkerAnswer> DecodeWorkerAnswer(std::string_view bytes);

}  // namespace millstream
