// SPDX-License-Identifier: Apache-2.0
// A coordinator with simulated workers under a simulated clock: machines that are slow, stop, die,
// drain and join, messages that are lost, late or come twice, networks that part, coordinators that
// begin anew, rows that kill. Keeps its own account of what is durable, for tests and benchmarks.

#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "job/coordinator.h"

namespace millstream {

struct ClusterOptions {
  std::uint64_t seed = 1;
  int num_workers = 200;
  std::int64_t num_splits = 2000;
  std::int64_t rows_per_split = 64;
  bool has_row_log = true;
  double rows_per_second = 10;  // of most workers, more or less
  double slow_share = 0;        // of the workers, which do a twentieth of it
  std::int64_t window = 16;     // rows under way at a time in a worker
  double exchange_seconds = 2, flush_seconds = 5, publish_seconds = 0.5;
  double lost = 0, late = 0, doubled = 0;  // of the messages
  // Of one worker. Those who die are replaced.
  double deaths_per_hour = 0, drains_per_hour = 0, stops_per_hour = 0;
  double known_share = 0.5;  // of the deaths: a manager says so; silence does of the others
  double partitions_per_hour = 0, restarts_per_hour = 0;  // of the job
  std::int64_t num_poison = 0;                            // rows that kill
  double limit_seconds = 100'000;                         // to be over in
  std::int64_t (*stopwatch_ns)() = nullptr;               // for decision_ns
};

/// What came of it.
struct ClusterOutcome {
  std::int64_t num_published = 0;
  std::int64_t num_published_again = 0;  // the part stood
  std::int64_t rows_missing = 0;         // of parts that were published
  std::int64_t rows_again = 0;           // begun though an answer was durable
  std::int64_t wrongly_blamed = 0, num_blamed = 0;
  std::int64_t num_deaths = 0, num_drains = 0, num_stops = 0, num_restarts = 0, num_partitions = 0;
  double seconds = 0;                               // until the job was over
  double inferred_seconds = 0, useful_seconds = 0;  // of rows, by what their worker takes for one
  double machine_seconds = 0;
  std::vector<std::uint32_t> decision_ns;
};

class SimulatedCluster {
 public:
  explicit SimulatedCluster(const ClusterOptions& options);

  /// Lets the next thing happen. Returns false once the job is over, or its time is up.
  bool Step();
  void Run() {
    while (Step()) {
    }
  }

  /// Whether the coordinator says so.
  bool is_over() const { return coordinator_ && coordinator_->is_over(); }
  const ClusterOutcome& outcome() const { return outcome_; }

 private:
  using Time = Coordinator::Time;

  struct Held {
    RowRange range;
    std::deque<RowRange> not_begun;
    std::vector<RowRange> finished;  // not durable
    std::int64_t under_way = 0;      // rows
    std::optional<Time> publishing_since;
  };
  struct Wave {                                           // rows that are inferred at the same time
    std::vector<std::pair<std::int64_t, RowRange>> rows;  // with their leases
    Time begin, end;
    std::int64_t size = 0;
  };
  struct Worker {
    std::int64_t number = 0;
    double rate = 0;
    bool is_alive = true;
    Time stopped_until{}, parted_until{}, joined_at{}, last_flush{};
    std::optional<Time> leaves_at;
    std::map<std::int64_t, Held> held;
    std::optional<Wave> wave;
    std::int64_t last_report = 0, last_answered = 0;
    std::vector<RowRange> done;
    std::vector<std::int64_t> published;
    std::ptrdiff_t done_said = 0, published_said = 0;  // in the last report
    std::int64_t rows_finished = 0;
  };
  struct Event {
    Time time;
    std::uint64_t number = 0;
    std::function<void()> action;
  };
  struct Split {
    std::vector<bool> durable;  // empty: none
    bool is_published = false;
  };

  // Chance and time, what befalls machines, and messages: simulated_cluster.cc.
  static bool ComesLater(const Event& one, const Event& other);
  void After(double time, std::function<void()> action);
  bool Chance(double share);
  double Between(double least, double most);
  void EveryHour(double times, const std::function<void()>& action);
  void Join();
  void StartCoordinator();
  void Expire();
  void Restart();
  void PartNetwork();
  void Stop(Worker& worker);
  void Notice(Worker& worker);
  void Die(Worker& worker, bool is_known, bool may_be_a_row);
  void Blame(const std::vector<RowRange>& rows);
  void Send(const Worker& worker, const std::function<void()>& arrives);
  void Tick(Worker& worker);
  void Report(Worker& worker, bool leaves);
  void Arrive(Worker& worker, const std::shared_ptr<const WorkerReport>& report);
  void Obey(Worker& worker, std::int64_t report, const WorkerOrders& orders);

  // What workers do, and what is durable: simulated_worker.cc.
  void Take(Worker& worker, const Lease& lease);
  static void Shorten(Worker& worker, const Lease& lease);
  void Advance(Worker& worker);
  void BeginWave(Worker& worker, Time time);
  void EndWave(Worker& worker);
  void FlushSome(Worker& worker);
  void Flush(Worker& worker, std::vector<RowRange>& finished);
  void FinishLeases(Worker& worker);
  void Publish(Worker& worker, const Held& held);
  WorkerReport ReportOf(Worker& worker) const;
  Split& SplitOf(std::int64_t split) { return splits_[static_cast<std::size_t>(split)]; }
  bool IsWhole(const RowRange& rows) const { return rows.size() == options_.rows_per_split; }
  bool IsDurable(std::int64_t split, std::int64_t row) const;
  std::int64_t CountDurable(const RowRange& rows) const;
  std::int64_t SetDurable(const RowRange& rows);
  bool HasPoison(const RowRange& rows) const;

  const ClusterOptions options_;
  std::mt19937_64 random_;
  std::mt19937_64 calendar_;  // of what befalls the job, whatever its workers do
  Time now_{};
  std::uint64_t num_events_ = 0;
  std::vector<Event> events_;  // a heap
  std::optional<Coordinator> coordinator_;
  std::int64_t epoch_ = 0;
  std::deque<Worker> workers_;  // all there ever were
  std::vector<Split> splits_;
  std::set<std::pair<std::int64_t, std::int64_t>> poison_;
  ClusterOutcome outcome_;
};

}  // namespace millstream
