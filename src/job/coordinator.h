// SPDX-License-Identifier: Apache-2.0
// Which worker works on which rows. No input, no output, no clock: time is an argument.
//
// The rows of a job are lent to workers in ranges of a split. A worker says every now and then what
// it holds and how far it is, and is told what it should hold; both sides then do what makes the
// two equal. So a message that is lost, late or comes twice, a worker that was taken for dead and
// is not, and a coordinator that begins anew with an empty table cost time and no row: what is done
// is what is durable (a range's answers in the row log, a split's part), whoever did it, and
// however often it is said.
//
// Who holds the whole of a split publishes its part. A split that was divided has all its answers
// in the row log once its last range is done: it is then lent as a whole, which costs no inference.

#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "job/open_rows.h"

namespace millstream {

/// A range that is lent. Its number is never used again, in no epoch.
struct Lease {
  std::int64_t number = 0;
  RowRange range;
};

/// How far a worker is with a lease. It begins its leases in order of their numbers, and a lease's
/// rows in order, those that have durable answers already left out; it holds a lease until all of
/// its rows have one, or, if the lease is a whole split, until the part is published.
struct HeldLease {
  Lease lease;             // an end before the one that it was told: it gives the rest back
  std::int64_t begun = 0;  // the place of the first row that it has not begun
  // For how long what takes longest of it, a row or publishing, has been under way.
  std::chrono::milliseconds oldest{0};
};

/// A worker waits for a report's answer before it sends the next, or gives up waiting and then
/// ignores the answer.
struct WorkerReport {
  std::int64_t worker = 0;  // its number: of one life of one worker, drawn by it
  std::int64_t number = 0;  // of the report: they grow
  std::vector<HeldLease> held;
  // Answers durable and parts published, said again until a report that says so is answered.
  std::vector<RowRange> done;
  std::vector<std::int64_t> published;
  std::int64_t wants_rows = 0;            // how many more it can begin soon
  std::int64_t rows_finished = 0;         // in its life
  std::chrono::milliseconds row_time{0};  // what nearly all of its rows take at most; 0: not known
  bool leaves = false;                    // it ends after this, without a fault
};

/// What makes a worker hold what it should.
struct WorkerOrders {
  std::vector<Lease> take;  // those that it does not hold yet
  /// Leases that end earlier than it knows. What it has begun beyond stays with it.
  std::vector<Lease> shorten;
  /// Numbers of leases that it should no longer hold, whatever it has begun of them.
  std::vector<std::int64_t> end;
  bool is_over = false;  // nothing is left to do for anyone
};

struct CoordinatorOptions {
  std::int64_t epoch = 1;
  /// Whether answers are kept by the row: else the whole split is the least that is lent, but in
  /// search of a row that kills.
  bool divides = true;
  std::int64_t rows_min = 16;  // a range is not divided into less
  /// A worker that was not heard for so long is dead.
  std::chrono::milliseconds silence_limit{15'000};
  /// A lease with a row that has been under way for so long, and for several times what rows take,
  /// is lent to a second worker, once there is nothing else to lend.
  std::chrono::milliseconds standstill_limit{10'000};
  /// From the first report on nothing is lent for so long: those who hold leases of an earlier
  /// epoch say so first.
  std::chrono::milliseconds settle{0};
  int deaths_max = 3;  // of workers with a single row in hand: then the row is to blame
};

/// For one thread.
class Coordinator {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `splits`: those whose parts do not stand, and how many rows each has.
  Coordinator(
      const CoordinatorOptions& options,
      const std::vector<std::pair<std::int64_t, std::int64_t>>& splits
  );

  /// Hears a worker; one that is not known joins.
  WorkerOrders Hear(const WorkerReport& report, Time now);
  /// So many workers are at work, or are about to join: rows are left for each.
  void Expect(std::int64_t num_workers) { num_expected_ = num_workers; }
  /// A worker gets no more to begin, as its machine is about to go: with its next report, what it
  /// has not begun goes to others. May be said again.
  void Drain(std::int64_t worker);

  /// A worker has died. `may_be_a_row`: for no reason that is known. Returns the rows, one a range,
  /// that so many workers died of that no more should: each is to be made a row that failed, with a
  /// durable answer, before Hear() lends it again.
  [[nodiscard]] std::vector<RowRange> Die(std::int64_t worker, bool may_be_a_row);
  /// Takes workers for dead that were not heard for too long; hear first what has come. Returns
  /// what Die() does.
  [[nodiscard]] std::vector<RowRange> Expire(Time now);
  /// A row that they returned has its durable answer.
  void NoteFailed(const RowRange& row) { NoteDone(row); }
  /// When Expire() has something to do if nothing is heard; nothing if never.
  std::optional<Time> NextTime() const;

  int deaths_max() const { return options_.deaths_max; }
  bool is_over() const { return open_.num_splits() == 0; }
  std::int64_t num_workers() const { return static_cast<std::int64_t>(workers_.size()); }
  std::int64_t num_leases() const { return static_cast<std::int64_t>(leases_.size()); }
  std::int64_t splits_left() const { return open_.num_splits(); }
  /// How often it heard that something was done which it did not know.
  std::int64_t num_news() const { return num_news_; }

 private:
  // A lease and its copy have the same range; all other leases have no row in common.
  struct Lent {
    RowRange range;
    std::int64_t worker = 0;
    std::int64_t begun = 0;  // as far as is known, or to be expected
    Risk risk;
    std::optional<Time> waits_since;  // for what takes longest of it
    std::int64_t twin = 0;            // the lease of the same rows; 0: none
    std::int64_t listed_in = 0;       // the last report that it was in

    // How many rows another may take over, about.
    std::int64_t left() const { return twin != 0 || risk.is_suspect ? 0 : range.end - begun; }
  };
  struct Worker {
    std::int64_t last_report = 0;
    std::set<std::int64_t> leases;
    Time heard_at{};
    std::chrono::nanoseconds interval{0};  // between its last reports
    bool drains = false;
    double rate = 0;  // rows a second, while it has enough of them; 0: not known
    Time rate_at{};   // since when rows are counted for it
    std::int64_t rows_finished = 0;
    std::int64_t left = 0;  // rows of its leases that others may take over
    double rank = 0;        // its place in busy_
  };

  // How far workers are: coordinator.cc.
  void Touch(std::int64_t number, Worker& worker, Time now);
  void NoteRate(std::int64_t number, Worker& worker, const WorkerReport& report, Time now);
  // Whether that was news.
  bool NoteDone(const RowRange& range);
  bool NotePublished(std::int64_t split);
  void NoteHeld(std::int64_t number, const HeldLease& held, std::int64_t report, Time now);
  Lent* Claim(std::int64_t number, const HeldLease& held);
  void Extend(std::int64_t lease, Lent& lent, std::int64_t end);
  WorkerOrders OrdersFor(const WorkerReport& report, const Worker& worker) const;

  // What they get: coordinator_lend.cc.
  void Lend(std::int64_t number, Worker& worker, std::int64_t wants, Time now);
  std::int64_t ShareOf(const Worker& worker) const;
  bool Steal(std::int64_t number, Worker& worker, std::int64_t wants, Time now);
  std::optional<std::int64_t> PlaceToCut(
      const Worker& victim, const Worker& thief, const Lent& lent, Time now
  ) const;
  void Copy(std::int64_t number, Worker& worker, Time now);
  void Grant(std::int64_t number, const RowRange& range, const Risk& risk, std::int64_t wants);

  // The table of leases: coordinator_leases.cc.
  Lent& Add(std::int64_t lease, std::int64_t worker, const RowRange& range, const Risk& risk);
  void Pair(std::int64_t lease, std::int64_t copy);
  void Drop(std::int64_t lease);
  RowRange CutOff(std::int64_t lease, std::int64_t end);
  void GiveBack(std::int64_t lease, std::int64_t end);
  void GiveBackNotBegun(std::int64_t lease);
  void SetBegun(Lent& lent, std::int64_t begun);
  void SetWaiting(std::int64_t lease, Lent& lent, std::optional<Time> since);
  void Bury(std::int64_t number, bool may_be_a_row, std::vector<RowRange>& blamed);
  void ReturnOfDead(const Lent& lent, std::vector<RowRange>& blamed);
  std::vector<std::int64_t> LeasesOf(const RowRange& range) const;
  double RateOf(const Worker& worker) const;
  void Rank(std::int64_t number, Worker& worker, std::int64_t more_left);

  const CoordinatorOptions options_;
  OpenRows open_;
  // Ordered, as a hash table that grows keeps a worker waiting.
  std::map<std::int64_t, Lent> leases_;
  std::map<std::int64_t, Worker> workers_;
  // Those who died or left: what they sent before may still come.
  std::set<std::int64_t> gone_;
  std::set<std::pair<Time, std::int64_t>> heard_;         // workers, and those gone
  std::set<std::pair<double, std::int64_t>> busy_;        // workers, by the time for left
  std::set<std::pair<Time, std::int64_t>> waiting_;       // leases without twin
  std::set<std::pair<RowRange, std::int64_t>> by_place_;  // leases
  std::int64_t last_lease_;
  std::int64_t num_expected_ = 0;
  std::int64_t num_news_ = 0;
  std::optional<Time> lends_from_;
  // Of all workers.
  double rate_ = 0;
  double row_time_ms_ = 0;
};

}  // namespace millstream
