// SPDX-License-Identifier: Apache-2.0
// Finished rows to parts: holds the rows of open splits until each split is whole, then puts them
// in input order.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "arrow/record_batch.h"
#include "base/mutex.h"
#include "base/status.h"
#include "data/input.h"
#include "ledger/ledger.h"
#include "pipeline/row_batch.h"
#include "pipeline/runner.h"

namespace millstream {

/// A whole split: its output rows in input order, and what became of all its rows.
struct FinishedSplit {
  std::int64_t split = 0;
  arrow::RecordBatchVector batches;  // of the output schema
  arrow::RecordBatchVector errors;   // failed rows, where the output leaves them out
  RowCounts counts;
  std::set<std::string> codes;       // of its errors
  std::vector<std::int64_t> places;  // in the split, of the rows of `batches`
  /// Which rows of the split are skipped: bit i of byte i / 8. Empty: none.
  std::string skipped_rows;
};

struct AssemblerOptions {
  std::shared_ptr<arrow::Schema> schema;  // of output rows
  std::vector<std::string> files;         // names of the snapshot's files, for _source
  bool keep_ok = true, keep_errors = true, keep_skipped = false;
  std::int32_t version = 1;            // of the spec, for _source
  const ChosenRows* chosen = nullptr;  // the rows that will come, of each split; none: all
};

/// A thread-safe RowSink. `done` is called once a split, on the thread that finished its last row.
class Assembler final : public RowSink {
 public:
  using Done = std::function<Status(FinishedSplit)>;
  Assembler(AssemblerOptions options, std::span<const Split> splits, Done done);

  Status Finish(FinishedRows rows) override;
  /// Ends splits that have no rows at all.
  Status FinishEmptySplits();

 private:
  struct OpenSplit {
    std::int64_t num_rows = 0, rows_left = 0;
    RowCounts counts;
    std::string skipped_rows;
    std::set<std::string> codes;
    std::vector<FinishedRows> pieces, errors;
  };
  Status FinishPiece(std::int64_t split, FinishedRows rows);
  Status Assemble(std::int64_t split, OpenSplit open);
  Result<std::shared_ptr<arrow::RecordBatch>> OutputRows(const FinishedRows& rows) const;
  Result<arrow::RecordBatchVector> InOrder(
      const std::vector<FinishedRows>& pieces, std::vector<std::int64_t>* places
  ) const;
  bool Kept(RowStatus status) const;

  const AssemblerOptions options_;
  const Done done_;
  std::vector<std::int64_t> empty_splits_;

  Mutex mutex_;
  std::map<std::int64_t, OpenSplit> open_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
