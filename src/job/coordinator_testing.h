// SPDX-License-Identifier: Apache-2.0
// What tests of the coordinator share.

#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "job/coordinator.h"

namespace millstream {

/// A worker that does what it is told and says what the test wants.
class Puppet {
 public:
  explicit Puppet(std::int64_t number) { report.worker = number; }

  WorkerOrders Tell(Coordinator& coordinator, Coordinator::Time now) {
    ++report.number;
    report.held.clear();
    for (const auto& [number, lease] : held) report.held.push_back(lease);
    const WorkerOrders orders = coordinator.Hear(report, now);
    report.done.clear();
    report.published.clear();
    Do(orders);
    return orders;
  }
  void Do(const WorkerOrders& orders) {
    for (const Lease& lease : orders.take) held[lease.number] = {lease, lease.range.begin, {}};
    for (const Lease& lease : orders.shorten) {
      HeldLease& mine = held.at(lease.number);
      mine.lease.range.end = std::max(lease.range.end, mine.begun);
    }
    for (const std::int64_t lease : orders.end) held.erase(lease);
  }
  // All of its rows are durable, and all of it published that is a whole split.
  void Finish(std::int64_t number, std::int64_t num_rows) {
    const RowRange range = held.at(number).lease.range;
    report.done.push_back(range);
    report.rows_finished += range.size();
    if (range.size() == num_rows) report.published.push_back(range.split);
    held.erase(number);
  }
  // Begins all of its rows, or the first.
  void Begin(std::int64_t rows = 1 << 30) {
    for (auto& [number, lease] : held) {
      lease.begun = std::min(lease.lease.range.end, lease.lease.range.begin + rows);
    }
  }
  std::vector<RowRange> ranges() const {
    std::vector<RowRange> all;
    all.reserve(held.size());
    for (const auto& [number, lease] : held) all.push_back(lease.lease.range);
    return all;
  }

  WorkerReport report;
  std::map<std::int64_t, HeldLease> held;
};

using Ranges = std::vector<RowRange>;

class CoordinatorTest : public testing::Test {
 protected:
  static constexpr std::int64_t kRows = 1000;  // of a split

  Coordinator Make(std::int64_t num_splits, CoordinatorOptions options = {}) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> splits;
    splits.reserve(static_cast<std::size_t>(num_splits));
    for (std::int64_t split = 0; split < num_splits; ++split) splits.emplace_back(split, kRows);
    return Coordinator(options, splits);
  }
  // A worker that has got something.
  Puppet Join(Coordinator& coordinator, std::int64_t number, std::int64_t wants = 1) {
    Puppet worker(number);
    worker.report.wants_rows = wants;
    worker.Tell(coordinator, now_);
    worker.report.wants_rows = 0;
    return worker;
  }
  WorkerOrders Ask(Coordinator& coordinator, Puppet& worker, std::int64_t wants = 1) {
    worker.report.wants_rows = wants;
    const WorkerOrders orders = worker.Tell(coordinator, now_);
    worker.report.wants_rows = 0;
    return orders;
  }
  // They have done so many rows a second, with more to do.
  void HaveRates(Coordinator& coordinator, const std::vector<std::pair<Puppet*, int>>& rates) {
    for (const auto& [worker, rate] : rates) worker->Begin(10);
    for (int i = 0; i < 100; ++i) {
      for (const auto& [worker, rate] : rates) {
        worker->Tell(coordinator, now_);
        worker->report.rows_finished += rate;
      }
      now_ += std::chrono::seconds(1);
    }
    for (const auto& [worker, rate] : rates) worker->Tell(coordinator, now_);
  }

  Coordinator::Time now_{};
};

}  // namespace millstream
