// SPDX-License-Identifier: Apache-2.0
#include "pipeline/row_batch.h"

#include <utility>

#include "arrow/array/array_primitive.h"
#include "arrow/array/util.h"
#include "arrow/buffer.h"
#include "arrow/compute/api_vector.h"
#include "arrow/datum.h"
#include "arrow/util/byte_size.h"

namespace millstream {
namespace {

bool IsRun(std::span<const std::int64_t> indices) {
  for (std::size_t i = 1; i < indices.size(); ++i) {
    if (indices[i] != indices[i - 1] + 1) return false;
  }
  return true;
}

}  // namespace

Result<std::shared_ptr<arrow::RecordBatch>> TakeColumns(
    const std::shared_ptr<arrow::RecordBatch>& columns, std::span<const std::int64_t> indices
) {
  const auto count = static_cast<std::int64_t>(indices.size());
  if (columns->num_columns() == 0) {
    return arrow::RecordBatch::Make(columns->schema(), count, arrow::ArrayVector{});
  }
  if (count > 0 && IsRun(indices)) return columns->Slice(indices.front(), count);
  auto array = std::make_shared<arrow::Int64Array>(
      count, arrow::Buffer::Wrap(indices.data(), indices.size())
  );
  MS_ASSIGN_OR_RETURN(
      arrow::Datum taken,
      arrow::compute::Take(
          arrow::Datum(columns), arrow::Datum(array), arrow::compute::TakeOptions::NoBoundsCheck()
      )
  );
  return taken.record_batch();
}

Result<RowBatch> TakeRows(const RowBatch& batch, std::span<const std::int64_t> indices) {
  RowBatch taken;
  MS_ASSIGN_OR_RETURN(taken.columns, TakeColumns(batch.columns, indices));
  MS_ASSIGN_OR_RETURN(taken.kept, TakeColumns(batch.kept, indices));
  taken.rows.reserve(indices.size());
  for (std::int64_t index : indices) {
    taken.rows.push_back(batch.rows[static_cast<std::size_t>(index)]);
  }
  return taken;
}

std::int64_t BatchBytes(const RowBatch& batch) {
  // Referenced bytes count a slice's share, not the whole buffer that it views.
  const auto columns = arrow::util::ReferencedBufferSize(*batch.columns);
  return columns.ok() ? *columns : arrow::util::TotalBufferSize(*batch.columns);
}

Status LeaveFailed(const RowBatch& batch, std::vector<FailedRow> failed, Emitter& out) {
  if (failed.empty()) return Status::OK();
  std::vector<std::int64_t> rows;
  FinishedRows leaving{RowStatus::kError, {}, {}};
  for (FailedRow& row : failed) {
    rows.push_back(row.row);
    leaving.errors.push_back(std::move(row.error));
  }
  MS_ASSIGN_OR_RETURN(leaving.batch, TakeRows(batch, rows));
  return out.Leave(std::move(leaving));
}

Result<RowBatch> PartRows(RowBatch batch, std::vector<FailedRow> failed, Emitter& out) {
  if (failed.empty()) return batch;
  std::vector<std::int64_t> good;
  auto next = failed.begin();
  for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
    if (next != failed.end() && next->row == row) {
      ++next;
    } else {
      good.push_back(row);
    }
  }
  MS_RETURN_NOT_OK(LeaveFailed(batch, std::move(failed), out));
  return TakeRows(batch, good);
}

}  // namespace millstream
