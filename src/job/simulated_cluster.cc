// SPDX-License-Identifier: Apache-2.0
#include "job/simulated_cluster.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace millstream {
namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::seconds;

constexpr double kNoticeSeconds = 30, kLeaveSeconds = 3;  // of a machine that goes
constexpr double kHour = 3600;

Coordinator::Time::duration Of(double time) {
  return duration_cast<Coordinator::Time::duration>(duration<double>(time));
}

}  // namespace

SimulatedCluster::SimulatedCluster(const ClusterOptions& options)
    : options_(options),
      random_(options.seed),
      calendar_(options.seed),
      splits_(static_cast<std::size_t>(options.num_splits)) {
  const auto any = [&](std::int64_t count) {
    return std::uniform_int_distribution<std::int64_t>(0, count - 1)(random_);
  };
  for (std::int64_t i = 0; i < options_.num_poison; ++i) {
    poison_.emplace(any(options_.num_splits), any(options_.rows_per_split));
  }
  StartCoordinator();
  for (int i = 0; i < options_.num_workers; ++i) After(Between(0, 2), [this] { Join(); });
  EveryHour(options_.restarts_per_hour, [this] { Restart(); });
  EveryHour(options_.partitions_per_hour, [this] { PartNetwork(); });
}

bool SimulatedCluster::Step() {
  const double limit = options_.limit_seconds;
  if (is_over() || events_.empty() || events_.front().time > Time{} + Of(limit)) {
    outcome_.seconds = duration<double>(now_.time_since_epoch()).count();
    for (const Worker& worker : workers_) {
      if (!worker.is_alive) continue;
      outcome_.machine_seconds += duration<double>(now_ - worker.joined_at).count();
    }
    return false;
  }
  std::pop_heap(events_.begin(), events_.end(), ComesLater);
  const Event event = std::move(events_.back());
  events_.pop_back();
  now_ = event.time;
  event.action();
  return true;
}

bool SimulatedCluster::ComesLater(const Event& one, const Event& other) {
  return std::pair(one.time, one.number) > std::pair(other.time, other.number);
}

void SimulatedCluster::After(double time, std::function<void()> action) {
  events_.push_back({now_ + Of(time), ++num_events_, std::move(action)});
  std::push_heap(events_.begin(), events_.end(), ComesLater);
}

bool SimulatedCluster::Chance(double share) {
  return share > 0 && std::bernoulli_distribution(share)(random_);
}

double SimulatedCluster::Between(double least, double most) {
  return std::uniform_real_distribution<double>(least, most)(random_);
}

void SimulatedCluster::EveryHour(double times, const std::function<void()>& action) {
  if (times <= 0) return;
  const double wait = std::exponential_distribution<double>(times / kHour)(calendar_);
  After(wait, [this, times, action] {
    action();
    EveryHour(times, action);
  });
}

void SimulatedCluster::Join() {
  Worker& worker = workers_.emplace_back();
  worker.number = static_cast<std::int64_t>(workers_.size());
  worker.rate = options_.rows_per_second * std::exp(Between(-0.4, 0.4));
  if (Chance(options_.slow_share)) worker.rate /= 20;
  worker.joined_at = worker.last_flush = now_;
  const auto befalls = [&](double times_per_hour, auto what) {
    if (times_per_hour <= 0) return;
    const double wait = std::exponential_distribution<double>(times_per_hour / kHour)(random_);
    After(wait, [&worker, what] {
      if (worker.is_alive) what();
    });
  };
  befalls(options_.deaths_per_hour, [&] {
    Advance(worker);
    Die(worker, /*is_known=*/Chance(options_.known_share), /*may_be_a_row=*/Chance(0.5));
  });
  befalls(options_.drains_per_hour, [&] { Notice(worker); });
  befalls(options_.stops_per_hour, [&] { Stop(worker); });
  Tick(worker);
}

void SimulatedCluster::StartCoordinator() {
  CoordinatorOptions options;
  options.epoch = ++epoch_;
  options.divides = options_.has_row_log;
  if (epoch_ > 1) {
    options.settle = duration_cast<std::chrono::milliseconds>(Of(2 * options_.exchange_seconds));
  }
  std::vector<std::pair<std::int64_t, std::int64_t>> open;
  for (std::int64_t split = 0; split < options_.num_splits; ++split) {
    if (!SplitOf(split).is_published) open.emplace_back(split, options_.rows_per_split);
  }
  coordinator_.emplace(options, open);
  Expire();
}

// Looks every second, of each coordinator once.
void SimulatedCluster::Expire() {
  After(1, [this, epoch = epoch_] {
    if (!coordinator_ || epoch != epoch_) return;
    Blame(coordinator_->Expire(now_));
    Expire();
  });
}

void SimulatedCluster::Restart() {
  if (!coordinator_) return;
  ++outcome_.num_restarts;
  coordinator_.reset();
  After(Between(1, 10), [this] { StartCoordinator(); });
}

void SimulatedCluster::PartNetwork() {
  ++outcome_.num_partitions;
  const Time until = now_ + Of(std::uniform_real_distribution<double>(5, 60)(calendar_));
  const double share = std::uniform_real_distribution<double>(0.01, 0.3)(calendar_);
  for (Worker& worker : workers_) {
    if (Chance(share)) worker.parted_until = until;
  }
}

// Its clock goes on, it does not.
void SimulatedCluster::Stop(Worker& worker) {
  ++outcome_.num_stops;
  Advance(worker);
  if (!worker.is_alive || now_ < worker.stopped_until) return;
  const auto time = Of(Between(2, 90));
  worker.stopped_until = now_ + time;
  if (worker.wave) worker.wave->end += time;
  for (auto& [lease, held] : worker.held) {
    if (held.publishing_since) *held.publishing_since += time;
  }
}

void SimulatedCluster::Notice(Worker& worker) {
  ++outcome_.num_drains;
  worker.leaves_at = now_ + Of(kNoticeSeconds - kLeaveSeconds);
  for (double wait = Between(0, 5); wait < kNoticeSeconds; wait += 5) {
    After(wait, [this, number = worker.number] {
      if (coordinator_) coordinator_->Drain(number);
    });
  }
  After(kNoticeSeconds - kLeaveSeconds, [this, &worker] {
    if (!worker.is_alive || now_ < worker.stopped_until) return;
    Advance(worker);
    for (auto& [lease, held] : worker.held) Flush(worker, held.finished);
    Report(worker, /*leaves=*/true);
  });
  After(kNoticeSeconds, [this, &worker] {
    Advance(worker);
    Die(worker, /*is_known=*/true, /*may_be_a_row=*/false);
  });
}

void SimulatedCluster::Die(Worker& worker, bool is_known, bool may_be_a_row) {
  if (!worker.is_alive) return;
  ++outcome_.num_deaths;
  worker.is_alive = false;
  outcome_.machine_seconds += duration<double>(now_ - worker.joined_at).count();
  if (worker.wave) {
    const double done =
        duration<double>(now_ - worker.wave->begin) / (worker.wave->end - worker.wave->begin);
    outcome_.inferred_seconds +=
        std::clamp(done, 0.0, 1.0) * static_cast<double>(worker.wave->size) / worker.rate;
  }
  worker.held.clear();
  worker.wave.reset();
  if (is_known) {
    After(Between(0.1, 2), [this, number = worker.number, may_be_a_row] {
      if (coordinator_) Blame(coordinator_->Die(number, may_be_a_row));
    });
  }
  After(Between(5, 60), [this] { Join(); });
}

// A row that failed has a durable answer.
void SimulatedCluster::Blame(const std::vector<RowRange>& rows) {
  for (const RowRange& row : rows) {
    ++outcome_.num_blamed;
    if (row.size() != 1 || !poison_.contains({row.split, row.begin})) ++outcome_.wrongly_blamed;
    SetDurable(row);
  }
}

void SimulatedCluster::Send(const Worker& worker, const std::function<void()>& arrives) {
  const int times = Chance(options_.doubled) ? 2 : 1;
  for (int i = 0; i < times; ++i) {
    if (now_ < worker.parted_until || Chance(options_.lost)) continue;
    const double longest = Chance(options_.late) ? 40 : 0.02;
    After(Between(0.001, longest), arrives);
  }
}

void SimulatedCluster::Tick(Worker& worker) {
  if (!worker.is_alive) return;
  if (now_ < worker.stopped_until) {
    After(duration<double>(worker.stopped_until - now_).count(), [this, &worker] { Tick(worker); });
    return;
  }
  Advance(worker);
  if (!worker.is_alive) return;
  const bool leaves = worker.leaves_at && now_ >= *worker.leaves_at;
  if (!leaves) Report(worker, false);
  After(options_.exchange_seconds * Between(0.9, 1.1), [this, &worker] { Tick(worker); });
}

void SimulatedCluster::Report(Worker& worker, bool leaves) {
  auto report = std::make_shared<WorkerReport>(ReportOf(worker));
  report->leaves = leaves;
  worker.done_said = std::ssize(worker.done);
  worker.published_said = std::ssize(worker.published);
  Send(worker, [this, &worker, report] { Arrive(worker, report); });
}

void SimulatedCluster::Arrive(Worker& worker, const std::shared_ptr<const WorkerReport>& report) {
  if (!coordinator_) return;
  const std::int64_t begin = options_.stopwatch_ns != nullptr ? options_.stopwatch_ns() : 0;
  auto orders = std::make_shared<WorkerOrders>(coordinator_->Hear(*report, now_));
  if (options_.stopwatch_ns != nullptr) {
    outcome_.decision_ns.push_back(static_cast<std::uint32_t>(options_.stopwatch_ns() - begin));
  }
  Send(worker, [this, &worker, orders, number = report->number] { Obey(worker, number, *orders); });
}

// Only the answer to the last report is of use.
void SimulatedCluster::Obey(Worker& worker, std::int64_t report, const WorkerOrders& orders) {
  if (!worker.is_alive || report != worker.last_report || report == worker.last_answered) return;
  if (now_ < worker.stopped_until) {
    After(duration<double>(worker.stopped_until - now_).count(), [this, &worker, report, orders] {
      Obey(worker, report, orders);
    });
    return;
  }
  worker.last_answered = report;
  worker.done.erase(worker.done.begin(), worker.done.begin() + worker.done_said);
  worker.done_said = 0;
  worker.published.erase(
      worker.published.begin(), worker.published.begin() + worker.published_said
  );
  worker.published_said = 0;
  Advance(worker);
  for (const Lease& lease : orders.take) Take(worker, lease);
  for (const Lease& lease : orders.shorten) Shorten(worker, lease);
  for (const std::int64_t lease : orders.end) {
    const auto ended = worker.held.find(lease);
    if (ended == worker.held.end()) continue;
    Flush(worker, ended->second.finished);
    worker.held.erase(ended);
  }
  Advance(worker);
}

}  // namespace millstream
