// SPDX-License-Identifier: Apache-2.0
// What a run works on, piece by piece.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <stop_token>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "data/input.h"
#include "pipeline/row_batch.h"

namespace millstream {

/// Rows of splits, by the split's number and their place in it.
using ChosenRows = std::map<std::int64_t, std::vector<bool>>;

/// Rows of a split, or all of them.
struct Piece {
  std::int64_t number = 0;  // no other piece of the run has it
  Split split;
  std::int64_t begin = 0, end = 0;            // of its rows, by their place in the split
  const std::vector<bool>* chosen = nullptr;  // which rows of the split it has, of these; none: all

  bool Has(std::int64_t row) const {
    return row >= begin && row < end &&
           (chosen == nullptr || (*chosen)[static_cast<std::size_t>(row)]);
  }
  /// How many of its rows are at a place in [from, to).
  std::int64_t Count(std::int64_t from, std::int64_t to) const;
  /// Where the rows end that it has as this one, or has not as it has not this one.
  std::int64_t EndOfAlike(std::int64_t row) const;
};

/// Gives a run its work. Rows of a piece may be taken back until they are begun: those from some
/// place on. Thread-safe.
class WorkSource {
 public:
  virtual ~WorkSource() = default;
  /// The next pieces, for one of so many readers to read in this order; waits while there are none
  /// yet. Empty: there will be none any more. Cancelled if it waits and `stop` is requested.
  virtual Result<std::vector<Piece>> Next(int readers, std::stop_token stop) = 0;
  /// Where an open piece ends now.
  virtual std::int64_t EndOf(std::int64_t piece) const = 0;
  /// A row is begun: the first engine gets it next. A piece's rows come in order. False if the row
  /// was taken back.
  virtual bool Begin(const RowRef& row) = 0;
};

/// How many of so many pieces a reader should take at once, in order: readers of one file then
/// seldom skip what another reads, and all end at about the same time.
std::size_t LengthOfRun(std::size_t pieces, int readers);

/// Splits that are all there from the start, of which nobody takes anything back. A piece has its
/// split's number.
class FixedWork final : public WorkSource {
 public:
  /// `splits`: in order. `chosen`: the rows to run, of each split; none: all. Both must outlive it.
  explicit FixedWork(std::span<const Split> splits, const ChosenRows* chosen = nullptr)
      : splits_(splits), chosen_(chosen) {}

  Result<std::vector<Piece>> Next(int readers, std::stop_token stop) override;
  std::int64_t EndOf(std::int64_t piece) const override;
  bool Begin(const RowRef& /*row*/) override { return true; }

 private:
  const std::span<const Split> splits_;
  const ChosenRows* const chosen_;
  Mutex mutex_;
  std::size_t next_ MS_GUARDED_BY(mutex_) = 0;
};

}  // namespace millstream
