// SPDX-License-Identifier: Apache-2.0
#include "job/coordinator.h"

#include <algorithm>
#include <limits>

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr int kEpochShift = 40;           // of the numbers of leases
constexpr double kRateSeconds = 30;       // what a rate is the mean of, about
constexpr double kShareOfOneReport = 64;  // in the means over all workers

double Seconds(nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

RowRange AllOf(std::int64_t split) {
  return {split, -1, std::numeric_limits<std::int64_t>::max()};
}

void NoteMean(double& mean, double value) {
  mean = mean == 0 ? value : mean + (value - mean) / kShareOfOneReport;
}

}  // namespace

Coordinator::Coordinator(
    const CoordinatorOptions& options,
    const std::vector<std::pair<std::int64_t, std::int64_t>>& splits
)
    : options_(options), open_(splits), last_lease_(options.epoch << kEpochShift) {}

WorkerOrders Coordinator::Hear(const WorkerReport& report, Time now) {
  // What is durable stays so, however old the news.
  for (const RowRange& range : report.done) num_news_ += NoteDone(range) ? 1 : 0;
  for (const std::int64_t split : report.published) num_news_ += NotePublished(split) ? 1 : 0;
  WorkerOrders nothing;
  nothing.is_over = is_over();
  if (gone_.contains(report.worker)) return nothing;
  const auto [found, joins] = workers_.try_emplace(report.worker);
  Worker& worker = found->second;
  if (joins) {
    worker.heard_at = worker.rate_at = now;
    worker.rows_finished = report.rows_finished;
  } else if (report.number < worker.last_report) {
    return nothing;  // it waits for the answer to a later one
  }
  const bool is_new = joins || report.number > worker.last_report;
  worker.last_report = report.number;
  Touch(report.worker, worker, now);
  if (report.leaves) {
    std::vector<RowRange> blamed;
    Bury(report.worker, /*may_be_a_row=*/false, blamed);
    gone_.insert(report.worker);
    return nothing;
  }
  // A report that comes twice is answered twice, and is heard once.
  if (is_new) {
    NoteRate(report.worker, worker, report, now);
    for (const HeldLease& held : report.held) NoteHeld(report.worker, held, report.number, now);
    if (!lends_from_) lends_from_ = now + options_.settle;
    if (now >= *lends_from_ && !worker.drains) Lend(report.worker, worker, report.wants_rows, now);
  }
  return OrdersFor(report, worker);
}

void Coordinator::Touch(std::int64_t number, Worker& worker, Time now) {
  heard_.erase({worker.heard_at, number});
  worker.interval = std::min<nanoseconds>(now - worker.heard_at, options_.silence_limit);
  worker.heard_at = now;
  heard_.emplace(now, number);
}

// A rate is what a worker does when it does not lack rows.
void Coordinator::NoteRate(
    std::int64_t number, Worker& worker, const WorkerReport& report, Time now
) {
  const double row_time_ms = static_cast<double>(report.row_time.count());
  if (row_time_ms > 0) NoteMean(row_time_ms_, row_time_ms);
  const auto rows = static_cast<double>(report.rows_finished - worker.rows_finished);
  const double seconds = Seconds(now - worker.rate_at);
  const bool had_enough = worker.left > 0;
  if (had_enough && rows == 0 && worker.rate == 0) return;  // its first are not finished
  if (had_enough && seconds > 0) {
    const double mean_over = std::max(kRateSeconds, row_time_ms / 250);
    const double weight = worker.rate == 0 ? 1 : seconds / (seconds + mean_over);
    worker.rate += weight * (rows / seconds - worker.rate);
    NoteMean(rate_, worker.rate);
    Rank(number, worker, 0);
  }
  worker.rate_at = now;
  worker.rows_finished = report.rows_finished;
}

bool Coordinator::NoteDone(const RowRange& range) {
  if (!open_.NoteDone(range)) return false;
  for (const std::int64_t lease : LeasesOf(range)) {
    Lent& lent = leases_.at(lease);
    if (!open_.IsWhole(lent.range) && open_.IsDone(lent.range)) {
      Drop(lease);
    } else {
      SetBegun(lent, lent.begun);
    }
  }
  if (open_.IsComplete(range.split) && LeasesOf(AllOf(range.split)).empty()) {
    open_.Return(range, {});
  }
  return true;
}

bool Coordinator::NotePublished(std::int64_t split) {
  if (!open_.IsOpen(split)) return false;
  for (const std::int64_t lease : LeasesOf(AllOf(split))) Drop(lease);
  open_.Close(split);
  return true;
}

void Coordinator::NoteHeld(
    std::int64_t number, const HeldLease& held, std::int64_t report, Time now
) {
  const std::int64_t lease = held.lease.number;
  const auto found = leases_.find(lease);
  Lent* lent = found == leases_.end() ? Claim(number, held) : &found->second;
  if (lent == nullptr || lent->worker != number) return;
  lent->listed_in = report;
  if (held.begun > lent->range.end && lent->twin == 0) Extend(lease, *lent, held.begun);
  SetBegun(*lent, held.begun);
  const bool waits = held.oldest > milliseconds(0);
  SetWaiting(lease, *lent, waits ? std::optional<Time>(now - held.oldest) : std::nullopt);
  if (held.lease.range.end < lent->range.end) {
    GiveBack(lease, held.lease.range.end);
  } else if (workers_.at(number).drains) {
    GiveBackNotBegun(lease);
  }
}

// A lease of an earlier epoch, or of a worker that was taken for dead.
Coordinator::Lent* Coordinator::Claim(std::int64_t number, const HeldLease& held) {
  const auto range = open_.Claim(held.lease.range);
  return range ? &Add(held.lease.number, number, *range, {}) : nullptr;
}

// A worker had begun more when it was told of its lease's new end: so far it is its own, unless
// another has it already.
void Coordinator::Extend(std::int64_t lease, Lent& lent, std::int64_t end) {
  const auto more = open_.Claim({lent.range.split, lent.range.end, end});
  if (!more) return;
  by_place_.erase({lent.range, lease});
  lent.range.end = more->end;
  by_place_.emplace(lent.range, lease);
  Rank(lent.worker, workers_.at(lent.worker), more->end - more->begin);
}

WorkerOrders Coordinator::OrdersFor(const WorkerReport& report, const Worker& worker) const {
  WorkerOrders orders;
  for (const HeldLease& held : report.held) {
    const auto found = leases_.find(held.lease.number);
    if (found == leases_.end() || found->second.worker != report.worker) {
      orders.end.push_back(held.lease.number);
    } else if (found->second.range.end < held.lease.range.end) {
      orders.shorten.push_back({held.lease.number, found->second.range});
    }
  }
  for (const std::int64_t lease : worker.leases) {
    const Lent& lent = leases_.at(lease);
    if (lent.listed_in != report.number) orders.take.push_back({lease, lent.range});
  }
  orders.is_over = is_over();
  return orders;
}

void Coordinator::Drain(std::int64_t worker) {
  const auto found = workers_.find(worker);
  if (found != workers_.end()) found->second.drains = true;
}

std::vector<RowRange> Coordinator::Die(std::int64_t worker, bool may_be_a_row) {
  std::vector<RowRange> blamed;
  if (!workers_.contains(worker)) return blamed;
  gone_.insert(worker);
  Bury(worker, may_be_a_row, blamed);
  return blamed;
}

std::vector<RowRange> Coordinator::Expire(Time now) {
  std::vector<RowRange> blamed;
  while (!heard_.empty() && heard_.begin()->first + options_.silence_limit <= now) {
    const std::int64_t worker = heard_.begin()->second;
    heard_.erase(heard_.begin());
    if (gone_.erase(worker) == 0) Bury(worker, /*may_be_a_row=*/true, blamed);
  }
  return blamed;
}

std::optional<Coordinator::Time> Coordinator::NextTime() const {
  if (heard_.empty()) return std::nullopt;
  return heard_.begin()->first + options_.silence_limit;
}

}  // namespace millstream
