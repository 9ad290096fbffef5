// SPDX-License-Identifier: Apache-2.0
// The rows of splits whose parts do not stand: which have durable answers, and which nobody holds.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace millstream {

/// Rows [begin, end) of a split, by their place in it.
struct RowRange {
  std::int64_t split = 0, begin = 0, end = 0;

  std::int64_t size() const { return end - begin; }
  friend auto operator<=>(const RowRange&, const RowRange&) = default;
};

/// What is held against rows: workers that held them died, and one of the rows may be why.
struct Risk {
  int deaths = 0;           // since the range was last divided
  bool is_suspect = false;  // to be lent alone, after all others

  friend bool operator==(const Risk&, const Risk&) = default;
};

/// For one thread.
class OpenRows {
 public:
  struct Free {
    RowRange range;
    Risk risk;
  };

  /// Splits with how many rows each has; nobody holds any.
  explicit OpenRows(const std::vector<std::pair<std::int64_t, std::int64_t>>& splits);

  std::int64_t num_splits() const { return static_cast<std::int64_t>(splits_.size()); }
  /// Of all open splits, without a durable answer.
  std::int64_t rows_left() const { return rows_left_; }
  bool IsOpen(std::int64_t split) const { return splits_.contains(split); }
  /// Whether the range is all of a split.
  bool IsWhole(const RowRange& range) const;
  /// From the first row of the range without a durable answer to the last; empty if all have one.
  RowRange NotDone(const RowRange& range) const;
  bool IsDone(const RowRange& range) const { return NotDone(range).size() == 0; }
  /// Whether all answers of an open split are durable.
  bool IsComplete(std::int64_t split) const;
  /// How many rows of the range have no durable answer; too many for a part of a split.
  std::int64_t CountNotDone(const RowRange& range) const;

  /// Answers are durable. Returns whether that was news.
  bool NoteDone(RowRange range);
  /// A split's part stands: it is forgotten.
  void Close(std::int64_t split);

  /// Nobody holds these rows any more. A split whose answers are all durable is whole again.
  void Return(const RowRange& range, const Risk& risk);
  /// The next rows to be lent, in order of splits; nothing if there are none.
  std::optional<Free> Take() { return TakeFirst(free_[0]); }
  /// The next that are suspect.
  std::optional<Free> TakeSuspect() { return TakeFirst(free_[1]); }
  /// The next split with all answers durable, which is to be published.
  std::optional<RowRange> TakeComplete();
  /// Takes what nobody holds at the head of a range, but for rows that are done; nothing if its
  /// first row that is not done is held. All that is left of a split is a whole split, if the range
  /// is one.
  std::optional<RowRange> Claim(const RowRange& range);

 private:
  struct Split {
    std::int64_t num_rows = 0;
    std::int64_t num_done = 0;
    std::map<std::int64_t, std::int64_t> done;  // begin to end, not touching
  };
  struct Rest {
    std::int64_t end = 0;
    Risk risk;
  };
  using Place = std::pair<std::int64_t, std::int64_t>;  // of a row: its split, and where in it
  using Ranges = std::map<Place, Rest>;

  static std::optional<Free> TakeFirst(Ranges& ranges);
  static std::int64_t EndOfFree(const Ranges& ranges, const Place& place);
  void Add(const RowRange& range, const Risk& risk);
  void Carve(const RowRange& range);

  std::unordered_map<std::int64_t, Split> splits_;
  std::int64_t rows_left_ = 0;
  // Rows that nobody holds, not those of complete_, and those of them that are suspect. They begin
  // and end with a row that is not done, but for whole splits.
  std::array<Ranges, 2> free_;
  std::set<std::int64_t> complete_;  // all answers are durable, and nobody publishes it
};

}  // namespace millstream
