// SPDX-License-Identifier: Apache-2.0
// Rows on their way through the pipeline, and how they leave it.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "data/row.h"

namespace millstream {

/// A row's identity and its place in the plan.
struct RowRef {
  RowId id;
  std::int64_t split = 0;
  std::int64_t index = 0;  // within its split
  std::int64_t piece = 0;  // of the run's work (work.h) that it came with
};

/// Rows with their columns. `rows[i]` names row i of `columns` and of `kept`.
struct RowBatch {
  std::shared_ptr<arrow::RecordBatch> columns;  // as the step at hand sees them
  std::shared_ptr<arrow::RecordBatch> kept;     // output columns that come from the input unchanged
  std::vector<RowRef> rows;

  std::int64_t num_rows() const { return static_cast<std::int64_t>(rows.size()); }
};

/// Copies the rows at `indices` (ascending) into a batch of their own.
Result<RowBatch> TakeRows(const RowBatch& batch, std::span<const std::int64_t> indices);
/// The rows at `indices`, in that order; consecutive ones are not copied.
Result<std::shared_ptr<arrow::RecordBatch>> TakeColumns(
    const std::shared_ptr<arrow::RecordBatch>& columns, std::span<const std::int64_t> indices
);
/// Bytes of the columns, as memory accounting counts them.
std::int64_t BatchBytes(const RowBatch& batch);

enum class RowStatus { kOk, kError, kSkipped };

/// Rows that are done. Ok rows have the output's columns; the others have `kept` alone.
struct FinishedRows {
  RowStatus status = RowStatus::kOk;
  RowBatch batch;
  std::vector<RowError> errors;  // kError: one a row
};

struct Piece;

/// Takes finished rows. Thread-safe.
class RowSink {
 public:
  virtual ~RowSink() = default;
  virtual Status Finish(FinishedRows rows) = 0;
  /// Of a piece of work all rows have come that will: all of its own, if none was taken back.
  virtual Status End(const Piece& /*piece*/) { return Status::OK(); }
};

/// Where an operator's rows go. Used by one thread at a time.
class Emitter {
 public:
  virtual ~Emitter() = default;
  /// Passes rows on to the next step. The batch may be empty, and is then dropped.
  virtual Status Emit(RowBatch batch) = 0;
  /// Lets rows leave the stream, so that no later step sees them.
  virtual Status Leave(FinishedRows rows) = 0;
};

/// One row-wise step. Immutable once bound: Process may be called from several threads at once.
class Operator {
 public:
  virtual ~Operator() = default;
  /// Consumes one non-empty batch and emits any number of batches.
  virtual Status Process(RowBatch batch, Emitter& out) const = 0;
};

/// A row of a batch that failed.
struct FailedRow {
  std::int64_t row = 0;
  RowError error;
};

/// Lets the failed rows (ascending) leave as errors.
Status LeaveFailed(const RowBatch& batch, std::vector<FailedRow> failed, Emitter& out);
/// The same, and returns the others.
Result<RowBatch> PartRows(RowBatch batch, std::vector<FailedRow> failed, Emitter& out);

}  // namespace millstream
