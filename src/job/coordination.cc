// SPDX-License-Identifier: Apache-2.0
#include "job/coordination.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace millstream {
namespace {

// That a driver can number.
constexpr std::int64_t kWorkersOfAnEpoch = 1'000'000;

CoordinatorOptions OptionsOf(const PreparedJob& job) {
  CoordinatorOptions options;
  options.epoch = job.ledger->epoch();
  options.divides = !job.models.empty();  // else nothing is kept by the row
  return options;
}

std::vector<std::pair<std::int64_t, std::int64_t>> Sizes(const std::vector<Split>& splits) {
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes;
  sizes.reserve(splits.size());
  for (const Split& split : splits) sizes.emplace_back(split.number, split.num_rows);
  return sizes;
}

Status FailureOf(const WorkerMessage& message) {
  switch (message.exit) {
    case ExitCode::kEngineBroken:
      return EngineBroken(message.failure);
    case ExitCode::kConflict:
      return Conflict(message.failure);
    default:
      return Status::IOError(message.failure);
  }
}

}  // namespace

Coordination::Coordination(PreparedJob& job, const std::vector<Split>& splits, JobMonitor& monitor)
    : ledger_(*job.ledger),
      monitor_(monitor),
      coordinator_(OptionsOf(job), Sizes(splits)),
      last_worker_(ledger_.epoch() * kWorkersOfAnEpoch) {}

Result<std::string> Coordination::Hear(std::string_view report, Time now) {
  MS_ASSIGN_OR_RETURN(WorkerMessage message, DecodeWorkerMessage(report));
  for (const JournalEntry& entry : message.entries) {
    MS_RETURN_NOT_OK(ledger_.Record(entry.type, entry.body));
  }
  // Before the coordinator knows: what it takes for done is in the journal.
  MS_RETURN_NOT_OK(ledger_.NotePublished(message.parts));
  if (!message.failure.empty()) return FailureOf(message);
  WorkerAnswer answer;
  answer.stops = stops_;
  answer.drains = stops_ || drains_ || draining_.contains(message.report.worker);
  if (answer.drains) coordinator_.Drain(message.report.worker);
  answer.orders = coordinator_.Hear(message.report, now);
  last_[message.report.worker] = std::move(message);
  Show();
  return Encode(answer);
}

Status Coordination::Die(std::int64_t worker, bool may_be_a_row) {
  return Blame(coordinator_.Die(worker, may_be_a_row));
}

Status Coordination::Expire(Time now) {
  return Blame(coordinator_.Expire(now));
}

Status Coordination::Blame(const std::vector<RowRange>& rows) const {
  if (rows.empty()) return Status::OK();
  return EngineBroken(fmt::format(
      "workers died again and again with row {} of split {} alone in hand",
      rows.front().begin,
      rows.front().split
  ));
}

void Coordination::Show() {
  JobMonitor::Progress progress = monitor_.progress();
  progress.rows = ledger_.counts();
  progress.tokens = {};
  std::map<std::string, JobMonitor::ErrorSample> errors;
  std::int64_t cut_answers = 0;
  for (const auto& [number, message] : last_) {
    progress.tokens += message.stats;
    cut_answers += message.cut_answers;
    for (const auto& [code, sample] : message.errors) {
      JobMonitor::ErrorSample& sum = errors[code];
      sum.count += sample.count;
      if (sum.example.empty()) sum.example = sample.example;
    }
  }
  monitor_.cut_answers = cut_answers;
  monitor_.Show(progress, std::move(errors));
}

}  // namespace millstream
