// SPDX-License-Identifier: Apache-2.0
// Finished rows to parts: holds the rows of open pieces of work until each has all of its own, then
// puts them in input order.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "arrow/record_batch.h"
#include "base/mutex.h"
#include "base/status.h"
#include "ledger/ledger.h"
#include "pipeline/row_batch.h"
#include "pipeline/work.h"

namespace millstream {

/// A piece, mostly a whole split: its output rows in input order, and what became of all its rows.
struct FinishedSplit {
  std::int64_t split = 0;
  std::int64_t piece = 0;            // its number
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
  std::int32_t version = 1;  // of the spec, for _source
};

/// A thread-safe RowSink. `done` is called once a piece, on the thread that ends it.
class Assembler final : public RowSink {
 public:
  using Done = std::function<Status(FinishedSplit)>;
  Assembler(AssemblerOptions options, Done done)
      : options_(std::move(options)), done_(std::move(done)) {}

  Status Finish(FinishedRows rows) override;
  Status End(const Piece& piece) override;
  /// Ends a piece whose rows nobody needs.
  void Drop(const Piece& piece);

 private:
  struct OpenPiece {
    RowCounts counts;
    std::string skipped_rows;
    std::set<std::string> codes;
    std::vector<FinishedRows> kept, errors;
  };
  void Add(std::int64_t piece, FinishedRows rows);
  OpenPiece Take(const Piece& piece);
  Result<std::shared_ptr<arrow::RecordBatch>> OutputRows(const FinishedRows& rows) const;
  Result<arrow::RecordBatchVector> InOrder(
      const std::vector<FinishedRows>& pieces, std::vector<std::int64_t>* places
  ) const;
  bool Kept(RowStatus status) const;

  const AssemblerOptions options_;
  const Done done_;

  Mutex mutex_;
  std::map<std::int64_t, OpenPiece> open_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
