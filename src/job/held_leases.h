// SPDX-License-Identifier: Apache-2.0
// What a worker holds of a job, and how far it is: work for its run, and the account of it for its
// coordinator, which meet here.

#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <vector>

#include "base/mutex.h"
#include "job/coordinator.h"
#include "pipeline/work.h"

namespace millstream {

struct HeldLeasesOptions {
  bool divides = true;  // as its coordinator's: else what is given out is begun
  std::chrono::milliseconds interval{1000};  // between two reports, at most
  std::function<std::int64_t()> room;        // of the first engine, or the readers, for more rows
  std::function<std::chrono::steady_clock::time_point()> now;
};

/// A lease is a piece of work, of its number: it is given out in order, its rows are begun and
/// finished, its answers made durable or its part published, and then it is held no longer.
/// Thread-safe.
class HeldLeases final : public WorkSource {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `splits`: of the plan, each at its number; they must outlive it.
  HeldLeases(std::span<const Split> splits, HeldLeasesOptions options)
      : splits_(splits), options_(std::move(options)) {}

  // For the run:
  Result<std::vector<Piece>> Next(int readers, std::stop_token stop) override;
  std::int64_t EndOf(std::int64_t piece) const override;
  bool Begin(const RowRef& row) override;
  void NoteFinished(const std::vector<RowRef>& rows);
  /// No more rows of a piece come. Returns whether they are a whole split: its part is to be
  /// written, and then NotePart() called.
  bool NoteEnd(const Piece& piece);
  void NotePart(const Piece& piece);

  // For what comes after it:
  /// Waits until a lease has finished since the last call, or until it is time to publish all that
  /// is held back: then it returns true.
  bool WaitForEnds(std::stop_token stop);
  /// Divided leases whose rows are finished: once all answers are durable, they are to be dropped.
  std::vector<Lease> Finished() const;
  void Drop(const std::vector<Lease>& leases);
  /// Parts stand. Their leases are held no longer.
  void NotePublished(const std::set<std::int64_t>& splits);

  // For the coordinator:
  /// Fills in what is held, and what is wanted; what is finished in all is there already.
  void Fill(WorkerReport& report);
  /// Does what the answer to a report says.
  void Apply(const WorkerReport& report, const WorkerOrders& orders);
  /// Takes back all that is not begun, for good: the run ends with what is.
  void GiveBack();
  /// Waits for something that the coordinator should hear before the next report is due.
  void WaitForNews(std::stop_token stop);

 private:
  struct Held {
    RowRange range;
    std::int64_t begun = 0;
    std::set<std::int64_t> gone;  // rows from there on that left before the engine
    bool is_given_out = false;
    bool is_finished = false;                // all its rows are, and its part is written
    bool is_ended = false;                   // by the coordinator: held no longer, but for its rows
    Time ended_at{};                         // since when no row is under way
    std::map<std::int64_t, Time> under_way;  // since when, by the place, in order of both

    std::int64_t left() const { return range.end - begun - std::ssize(gone); }
  };

  bool IsWhole(const RowRange& range) const;
  void NoteGone(Held& held, std::int64_t row) MS_REQUIRES(mutex_);
  void Move(Held& held, std::int64_t begun, std::int64_t end) MS_REQUIRES(mutex_);
  void End(std::int64_t lease) MS_REQUIRES(mutex_);
  void Finish(std::int64_t lease) MS_REQUIRES(mutex_);
  void NoteRate(std::int64_t rows_finished, Time now) MS_REQUIRES(mutex_);
  std::chrono::milliseconds RowTime() const MS_REQUIRES(mutex_);
  void SetNews() MS_REQUIRES(mutex_);

  const std::span<const Split> splits_;
  const HeldLeasesOptions options_;

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::int64_t, Held> held_ MS_GUARDED_BY(mutex_);  // by their numbers
  std::set<std::int64_t> waiting_ MS_GUARDED_BY(mutex_);     // not given out yet
  std::int64_t left_ MS_GUARDED_BY(mutex_) = 0;              // rows not begun
  std::int64_t under_way_ MS_GUARDED_BY(mutex_) = 0;         // rows begun, not finished
  std::int64_t few_left_ MS_GUARDED_BY(mutex_) = 0;          // more are wanted at once
  bool gives_back_ MS_GUARDED_BY(mutex_) = false;            // nothing more is begun
  bool gets_nothing_ MS_GUARDED_BY(mutex_) = false;          // though it wanted rows
  bool has_news_ MS_GUARDED_BY(mutex_) = false;              // for the coordinator
  bool has_ends_ MS_GUARDED_BY(mutex_) = false;              // of pieces
  double rate_ MS_GUARDED_BY(mutex_) = 0;                    // rows a second, while it has some
  std::optional<Time> rate_at_ MS_GUARDED_BY(mutex_);        // counted so far
  std::int64_t rows_finished_ MS_GUARDED_BY(mutex_) = 0;     // then
  std::array<std::int64_t, 32> row_times_ MS_GUARDED_BY(mutex_){};  // rows by log2 of milliseconds
};

}  // namespace millstream
