// SPDX-License-Identifier: Apache-2.0
// What the coordinator costs, and what churn costs a job, with simulated workers: scripts/bench
// scale.
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "job/simulated_cluster.h"

namespace millstream {
namespace {

constexpr std::int64_t kRowsPerSplit = 4096;
constexpr std::int64_t kWorkers[] = {100, 1'000, 5'000};
constexpr std::int64_t kSplits[] = {1'000, 10'000, 100'000};
constexpr std::size_t kDecisions = 300'000;  // for one cell of the table

std::int64_t ReadNs(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Of this thread: what else runs on the machine does not count.
std::int64_t CpuNs() {
  return ReadNs(CLOCK_THREAD_CPUTIME_ID);
}

ClusterOptions Churn(std::int64_t num_workers, std::int64_t num_splits) {
  ClusterOptions options;
  options.num_workers = static_cast<int>(num_workers);
  options.num_splits = num_splits;
  options.rows_per_split = kRowsPerSplit;
  options.rows_per_second = 20;
  options.window = 64;
  options.exchange_seconds = 5;
  options.flush_seconds = 15;
  options.publish_seconds = 2;
  options.deaths_per_hour = options.drains_per_hour = 0.05;
  options.stops_per_hour = 0.05;
  options.slow_share = 0.02;
  options.lost = options.late = options.doubled = 0.001;
  options.partitions_per_hour = options.restarts_per_hour = 4;
  options.stopwatch_ns = CpuNs;
  return options;
}

struct Costs {
  double mean_us = 0, p99_us = 0, rare_us = 0, max_us = 0;  // rare: one in 100,000 takes longer
};

Costs CostsOf(std::vector<std::uint32_t> decision_ns) {
  if (decision_ns.empty()) return {};
  std::sort(decision_ns.begin(), decision_ns.end());
  const double sum = std::accumulate(decision_ns.begin(), decision_ns.end(), 0.0);
  const auto us_of = [&](double share) {
    const double place = static_cast<double>(decision_ns.size() - 1) * share;
    return decision_ns[static_cast<std::size_t>(place)] / 1000.0;
  };
  const double mean_us = sum / static_cast<double>(decision_ns.size()) / 1000;
  return {mean_us, us_of(0.99), us_of(0.99999), us_of(1)};
}

// Bytes that a coordinator with two leases for each worker takes.
std::size_t BytesOf(std::int64_t num_workers, std::int64_t num_splits) {
  std::vector<std::pair<std::int64_t, std::int64_t>> splits;
  for (std::int64_t split = 0; split < num_splits; ++split) {
    splits.emplace_back(split, kRowsPerSplit);
  }
  const std::size_t before = mallinfo2().uordblks;
  Coordinator coordinator({}, splits);
  WorkerReport report;
  report.number = 1;
  report.wants_rows = kRowsPerSplit + 1;
  for (report.worker = 1; report.worker <= num_workers; ++report.worker) {
    coordinator.Hear(report, Coordinator::Time{});
  }
  return mallinfo2().uordblks - before;
}

struct Ran {
  ClusterOutcome outcome;
  double seconds = 0;  // that simulating took
};

Ran Run(const ClusterOptions& options, std::size_t decisions_max) {
  const std::int64_t begin = ReadNs(CLOCK_MONOTONIC);
  SimulatedCluster cluster(options);
  while (cluster.outcome().decision_ns.size() < decisions_max && cluster.Step()) {
  }
  return {cluster.outcome(), static_cast<double>(ReadNs(CLOCK_MONOTONIC) - begin) / 1e9};
}

// Twice the same: of each decision the shorter time counts, as an interrupt of the machine's lasts
// longer than one.
Ran RunTwice(const ClusterOptions& options, std::size_t decisions_max) {
  Ran first = Run(options, decisions_max);
  const Ran second = Run(options, decisions_max);
  first.seconds += second.seconds;
  for (std::size_t i = 0; i < first.outcome.decision_ns.size(); ++i) {
    std::uint32_t& ns = first.outcome.decision_ns[i];
    ns = std::min(ns, second.outcome.decision_ns.at(i));
  }
  return first;
}

void PrintCurve() {
  std::puts(
      "| workers | splits | us a decision: mean | p99 | p99.999 | longest | MB |\n"
      "|---|---|---|---|---|---|---|"
  );
  for (const std::int64_t workers : kWorkers) {
    for (const std::int64_t splits : kSplits) {
      const Costs costs = CostsOf(RunTwice(Churn(workers, splits), kDecisions).outcome.decision_ns);
      std::printf(
          "| %ld | %ld | %.2f | %.2f | %.0f | %.0f | %.1f |\n",
          workers,
          splits,
          costs.mean_us,
          costs.p99_us,
          costs.rare_us,
          costs.max_us,
          static_cast<double>(BytesOf(workers, splits)) / 1e6
      );
      std::fflush(stdout);
    }
  }
}

// Returns whether each row is in a part.
bool PrintJob(const char* name, const ClusterOptions& options) {
  const std::size_t all = std::numeric_limits<std::size_t>::max();
  const Ran ran = options.stopwatch_ns == nullptr ? Run(options, all) : RunTwice(options, all);
  const ClusterOutcome& outcome = ran.outcome;
  const Costs costs = CostsOf(outcome.decision_ns);
  const std::int64_t missing = options.num_splits - outcome.num_published;
  std::printf(
      "\n%s: %ld workers died, %ld of them with notice, %ld stopped for a while; "
      "%ld partitions, %ld restarts of the coordinator\n"
      "  rows lost: %ld, parts missing: %ld, parts that stood when they were to be published: %ld\n"
      "  job: %.0f s; of its machine time %.1f %% went into rows, %.3f %% of that into rows lost "
      "or "
      "done twice; simulated in %.0f s\n",
      name,
      outcome.num_deaths,
      outcome.num_drains,
      outcome.num_stops,
      outcome.num_partitions,
      outcome.num_restarts,
      outcome.rows_missing,
      missing,
      outcome.num_published_again,
      outcome.seconds,
      100 * outcome.inferred_seconds / outcome.machine_seconds,
      100 * (1 - outcome.useful_seconds / outcome.inferred_seconds),
      ran.seconds
  );
  if (!outcome.decision_ns.empty()) {
    std::printf(
        "  %zu decisions: mean %.2f us, p99 %.2f us, p99.999 %.0f us, longest %.0f us\n",
        outcome.decision_ns.size(),
        costs.mean_us,
        costs.p99_us,
        costs.rare_us,
        costs.max_us
    );
  }
  std::fflush(stdout);
  return missing == 0 && outcome.rows_missing == 0;
}

int Main() {
  PrintCurve();
  ClusterOptions options = Churn(5'000, 100'000);
  bool is_well = PrintJob("With a row log", options);
  options.stopwatch_ns = nullptr;
  options.has_row_log = false;
  is_well = PrintJob("Without, only whole splits are durable", options) && is_well;
  options.has_row_log = true;
  options.deaths_per_hour = options.drains_per_hour = options.stops_per_hour = 0;
  options.partitions_per_hour = options.restarts_per_hour = 0;
  is_well = PrintJob("With a row log, if nothing happens", options) && is_well;
  return is_well ? 0 : 1;
}

}  // namespace
}  // namespace millstream

int main() {
  return millstream::Main();
}
