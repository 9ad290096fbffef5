// SPDX-License-Identifier: Apache-2.0
// What the workers of a simulated cluster do, and the account of what is durable.
#include <algorithm>

#include "job/simulated_cluster.h"

namespace millstream {
namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr double kSpread = 0.3;  // of what rows take

double Seconds(Coordinator::Time::duration time) {
  return duration<double>(time).count();
}

void Append(std::vector<RowRange>& ranges, const RowRange& more) {
  if (!ranges.empty() && ranges.back().split == more.split && ranges.back().end == more.begin) {
    ranges.back().end = more.end;
  } else {
    ranges.push_back(more);
  }
}

}  // namespace

bool SimulatedCluster::IsDurable(std::int64_t number, std::int64_t row) const {
  const Split& split = splits_[static_cast<std::size_t>(number)];
  if (split.is_published) return true;
  return !split.durable.empty() && split.durable[static_cast<std::size_t>(row)];
}

std::int64_t SimulatedCluster::CountDurable(const RowRange& rows) const {
  const Split& split = splits_[static_cast<std::size_t>(rows.split)];
  if (split.is_published) return rows.size();
  if (split.durable.empty()) return 0;
  return std::count(split.durable.begin() + rows.begin, split.durable.begin() + rows.end, true);
}

std::int64_t SimulatedCluster::SetDurable(const RowRange& rows) {
  Split& split = SplitOf(rows.split);
  if (split.is_published) return 0;
  const std::int64_t news = rows.size() - CountDurable(rows);
  split.durable.resize(static_cast<std::size_t>(options_.rows_per_split));
  std::fill(split.durable.begin() + rows.begin, split.durable.begin() + rows.end, true);
  return news;
}

bool SimulatedCluster::HasPoison(const RowRange& rows) const {
  const auto next = poison_.lower_bound({rows.split, rows.begin});
  return next != poison_.end() && *next < std::pair(rows.split, rows.end);
}

// Loads what is durable of it.
void SimulatedCluster::Take(Worker& worker, const Lease& lease) {
  const auto [added, is_new] = worker.held.try_emplace(lease.number);
  if (!is_new) return;
  Held& held = added->second;
  held.range = lease.range;
  const RowRange& all = lease.range;
  if (CountDurable(all) == 0) {
    if (all.size() > 0) held.not_begun.push_back(all);
    return;
  }
  for (std::int64_t begin = all.begin, end = begin; begin < all.end; begin = end) {
    const bool is_durable = IsDurable(all.split, begin);
    while (end < all.end && IsDurable(all.split, end) == is_durable) ++end;
    if (is_durable) {
      worker.done.push_back({all.split, begin, end});
    } else {
      held.not_begun.push_back({all.split, begin, end});
    }
  }
}

void SimulatedCluster::Shorten(Worker& worker, const Lease& lease) {
  const auto found = worker.held.find(lease.number);
  if (found == worker.held.end()) return;
  Held& held = found->second;
  while (!held.not_begun.empty() && held.not_begun.back().end > lease.range.end) {
    RowRange& last = held.not_begun.back();
    last.end = std::max(lease.range.end, last.begin);
    held.range.end = last.end;
    if (last.size() > 0) break;
    held.not_begun.pop_back();
  }
}

void SimulatedCluster::Advance(Worker& worker) {
  if (!worker.is_alive || now_ < worker.stopped_until) return;
  while (worker.wave && worker.wave->end <= now_) {
    const Time end = worker.wave->end;
    EndWave(worker);
    if (!worker.is_alive) return;
    BeginWave(worker, end);
  }
  if (!worker.wave) BeginWave(worker, now_);
  if (Seconds(now_ - worker.last_flush) >= options_.flush_seconds) FlushSome(worker);
  FinishLeases(worker);
}

void SimulatedCluster::BeginWave(Worker& worker, Time time) {
  if (worker.leaves_at && time >= *worker.leaves_at) return;
  Wave wave;
  for (auto& [lease, held] : worker.held) {
    while (!held.not_begun.empty() && wave.size < options_.window) {
      RowRange& first = held.not_begun.front();
      RowRange rows = first;
      rows.end = std::min(rows.end, rows.begin + options_.window - wave.size);
      wave.rows.emplace_back(lease, rows);
      wave.size += rows.size();
      held.under_way += rows.size();
      outcome_.rows_again += CountDurable(rows);
      first.begin = rows.end;
      if (first.size() == 0) held.not_begun.pop_front();
    }
    if (wave.size == options_.window) break;
  }
  if (wave.size == 0) return;
  const double takes = static_cast<double>(options_.window) / worker.rate;
  wave.begin = time;
  wave.end =
      time +
      duration_cast<Time::duration>(duration<double>(takes * Between(1 - kSpread, 1 + kSpread)));
  worker.wave = std::move(wave);
}

void SimulatedCluster::EndWave(Worker& worker) {
  if (!worker.wave) return;
  const Wave wave = *worker.wave;
  for (const auto& [lease, rows] : wave.rows) {
    if (!HasPoison(rows) || CountDurable(rows) == rows.size()) continue;
    Die(worker, /*is_known=*/Chance(options_.known_share), /*may_be_a_row=*/true);
    return;
  }
  worker.wave.reset();
  worker.rows_finished += wave.size;
  outcome_.inferred_seconds += static_cast<double>(wave.size) / worker.rate;
  for (const auto& [lease, rows] : wave.rows) {
    const auto held = worker.held.find(lease);
    if (held == worker.held.end()) continue;  // another was faster
    held->second.under_way -= rows.size();
    Append(held->second.finished, rows);
  }
}

// Not always all of it, nor in order.
void SimulatedCluster::FlushSome(Worker& worker) {
  worker.last_flush = now_;
  if (!options_.has_row_log) return;
  for (auto& [lease, held] : worker.held) {
    if (held.finished.empty() || !Chance(0.3)) {
      Flush(worker, held.finished);
      continue;
    }
    RowRange& all = held.finished.back();
    std::vector<RowRange> some = {all};
    all.end = some[0].begin = all.begin + all.size() / 2;
    if (all.size() == 0) held.finished.pop_back();
    Flush(worker, some);
  }
}

void SimulatedCluster::Flush(Worker& worker, std::vector<RowRange>& finished) {
  if (!options_.has_row_log) return;
  for (const RowRange& rows : finished) {
    outcome_.useful_seconds += static_cast<double>(SetDurable(rows)) / worker.rate;
    Append(worker.done, rows);
  }
  finished.clear();
}

void SimulatedCluster::FinishLeases(Worker& worker) {
  for (auto next = worker.held.begin(); next != worker.held.end();) {
    Held& held = next->second;
    bool is_finished = held.not_begun.empty() && held.under_way == 0;
    if (is_finished) {
      Flush(worker, held.finished);
      if (IsWhole(held.range)) {
        if (!held.publishing_since) held.publishing_since = now_;
        is_finished = Seconds(now_ - *held.publishing_since) >= options_.publish_seconds;
        if (is_finished) Publish(worker, held);
      }
    }
    next = is_finished ? worker.held.erase(next) : std::next(next);
  }
}

// Creates the part if there is none.
void SimulatedCluster::Publish(Worker& worker, const Held& held) {
  Split& split = SplitOf(held.range.split);
  worker.published.push_back(held.range.split);
  if (split.is_published) {
    ++outcome_.num_published_again;
    return;
  }
  std::int64_t rows = CountDurable(held.range);
  if (!options_.has_row_log) {
    for (const RowRange& range : held.finished) rows += range.size();
    outcome_.useful_seconds += static_cast<double>(rows) / worker.rate;
  }
  ++outcome_.num_published;
  outcome_.rows_missing += held.range.size() - rows;
  split = {{}, true};
}

WorkerReport SimulatedCluster::ReportOf(Worker& worker) const {
  WorkerReport report;
  report.worker = worker.number;
  report.number = ++worker.last_report;
  report.done = worker.done;
  report.published = worker.published;
  report.rows_finished = worker.rows_finished;
  const double row_time = static_cast<double>(options_.window) / worker.rate * (1 + kSpread);
  report.row_time = milliseconds(static_cast<std::int64_t>(row_time * 1000));
  std::int64_t left = 0;
  for (const auto& [lease, held] : worker.held) {
    HeldLease& said = report.held.emplace_back();
    said.lease = {lease, held.range};
    said.begun = held.not_begun.empty() ? held.range.end : held.not_begun.front().begin;
    for (const RowRange& rows : held.not_begun) left += rows.size();
    if (held.publishing_since) {
      said.oldest = duration_cast<milliseconds>(now_ - *held.publishing_since);
    } else if (held.under_way > 0 && worker.wave) {
      said.oldest = duration_cast<milliseconds>(now_ - worker.wave->begin);
    }
  }
  const auto soon = static_cast<std::int64_t>(worker.rate * 2.5 * options_.exchange_seconds);
  const std::int64_t enough = std::max(options_.window, soon);
  if (left < enough && !worker.leaves_at) report.wants_rows = 2 * enough - left;
  return report;
}

}  // namespace millstream
