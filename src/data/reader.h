// SPDX-License-Identifier: Apache-2.0
// Streams the rows of splits as Arrow record batches that carry row ids.

#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "data/input.h"
#include "data/row.h"

namespace millstream {

/// Some consecutive records of one file. `columns` has the snapshot's schema (or the asked columns
/// of it) and one row for each record; a record that could not be read is all null there and named
/// in `errors`.
struct InputBatch {
  std::shared_ptr<arrow::RecordBatch> columns;
  std::int32_t file = 0;
  std::int64_t first_record = 1;
  /// (row in this batch, what was wrong), ascending.
  std::vector<std::pair<std::int64_t, RowError>> errors;
  /// Rows that are no rows of this job: another job's failed rows, for instance. They count as
  /// skipped. Ascending.
  std::vector<std::int64_t> skipped;
};

/// Rows that are not to be read, as who reads them dies: they fail as it says. Thread-safe.
class UnreadRows {
 public:
  virtual ~UnreadRows() = default;
  /// The first of them that is this row or comes after it in its file.
  virtual std::optional<std::pair<RowId, RowError>> NextUnread(const RowId& from) const = 0;
};

/// Reads splits. Keeps the place it reached, so that consecutive splits of a compressed file are
/// read in one pass. One thread at a time.
class SplitReader {
 public:
  /// Reads `columns` (empty: all) of the snapshot, at most `batch_rows` rows a batch. `snapshot`
  /// and `unread`, if there are any, must outlive it.
  SplitReader(
      const Snapshot& snapshot,
      const InputOptions& options,
      std::vector<std::string> columns,
      std::int64_t batch_rows,
      const UnreadRows* unread = nullptr
  );
  ~SplitReader();
  SplitReader(const SplitReader&) = delete;
  SplitReader& operator=(const SplitReader&) = delete;

  /// Moves to the start of `split`.
  Status Open(const Split& split);
  /// Returns the next batch of the open split, or nullopt at its end.
  Result<std::optional<InputBatch>> Next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace millstream
