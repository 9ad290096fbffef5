// SPDX-License-Identifier: Apache-2.0
#include "job/assembler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_nested.h"
#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/array/util.h"
#include "arrow/scalar.h"
#include "base/check.h"
#include "pipeline/bind.h"

namespace millstream {
namespace {

std::string_view StatusName(RowStatus status) {
  switch (status) {
    case RowStatus::kOk:
      return "ok";
    case RowStatus::kError:
      return "error";
    case RowStatus::kSkipped:
      return "skipped";
  }
  return "";
}

Result<std::shared_ptr<arrow::Array>> RepeatText(std::string_view text, std::int64_t count) {
  return arrow::MakeArrayFromScalar(arrow::StringScalar(std::string(text)), count);
}

Result<std::shared_ptr<arrow::Array>> ErrorColumn(
    const FinishedRows& rows, const std::shared_ptr<arrow::DataType>& type
) {
  const std::int64_t count = rows.batch.num_rows();
  if (rows.status != RowStatus::kError) return arrow::MakeArrayOfNull(type, count);
  arrow::StringBuilder step, code, message, answer;
  for (const RowError& error : rows.errors) {
    MS_RETURN_NOT_OK(step.Append(error.step));
    MS_RETURN_NOT_OK(code.Append(error.code));
    MS_RETURN_NOT_OK(message.Append(error.message));
    MS_RETURN_NOT_OK(error.answer.empty() ? answer.AppendNull() : answer.Append(error.answer));
  }
  arrow::ArrayVector children(static_cast<std::size_t>(type->num_fields()));
  MS_RETURN_NOT_OK(step.Finish(&children[0]));
  MS_RETURN_NOT_OK(code.Finish(&children[1]));
  MS_RETURN_NOT_OK(message.Finish(&children[2]));
  if (children.size() > 3) MS_RETURN_NOT_OK(answer.Finish(&children[3]));
  return std::make_shared<arrow::StructArray>(type, count, std::move(children));
}

Result<std::shared_ptr<arrow::Array>> SourceColumn(
    const RowBatch& batch,
    const std::vector<std::string>& files,
    std::int32_t version,
    const std::shared_ptr<arrow::DataType>& type
) {
  const std::int64_t count = batch.num_rows();
  arrow::StringBuilder file;
  arrow::Int64Builder record;
  arrow::ArrayVector children(3);
  MS_RETURN_NOT_OK(record.Reserve(count));
  std::int64_t bytes = 0;
  for (const RowRef& row : batch.rows) {
    bytes += static_cast<std::int64_t>(files[static_cast<std::size_t>(row.id.file)].size());
  }
  MS_RETURN_NOT_OK(file.Reserve(count));
  MS_RETURN_NOT_OK(file.ReserveData(bytes));
  for (const RowRef& row : batch.rows) {
    file.UnsafeAppend(files[static_cast<std::size_t>(row.id.file)]);
    record.UnsafeAppend(row.id.record);
  }
  MS_RETURN_NOT_OK(file.Finish(&children[0]));
  MS_RETURN_NOT_OK(record.Finish(&children[1]));
  MS_ASSIGN_OR_RETURN(children[2], arrow::MakeArrayFromScalar(arrow::Int32Scalar(version), count));
  return std::make_shared<arrow::StructArray>(type, count, std::move(children));
}

}  // namespace

bool Assembler::Kept(RowStatus status) const {
  return status == RowStatus::kOk      ? options_.keep_ok
         : status == RowStatus::kError ? options_.keep_errors
                                       : options_.keep_skipped;
}

Status Assembler::Finish(FinishedRows rows) {
  if (rows.batch.rows.empty()) return Status::OK();
  const auto piece_of = [&](std::size_t i) { return rows.batch.rows[i].piece; };
  const std::int64_t first = piece_of(0);
  if (std::all_of(rows.batch.rows.begin(), rows.batch.rows.end(), [&](const RowRef& row) {
        return row.piece == first;
      })) {
    Add(first, std::move(rows));
    return Status::OK();
  }
  for (std::size_t begin = 0; begin < rows.batch.rows.size();) {
    std::size_t end = begin;
    while (end < rows.batch.rows.size() && piece_of(end) == piece_of(begin)) ++end;
    std::vector<std::int64_t> indices(end - begin);
    std::iota(indices.begin(), indices.end(), static_cast<std::int64_t>(begin));
    FinishedRows piece{rows.status, {}, {}};
    MS_ASSIGN_OR_RETURN(piece.batch, TakeRows(rows.batch, indices));
    if (rows.status == RowStatus::kError) {
      piece.errors.assign(
          rows.errors.begin() + static_cast<std::ptrdiff_t>(begin),
          rows.errors.begin() + static_cast<std::ptrdiff_t>(end)
      );
    }
    Add(piece_of(begin), std::move(piece));
    begin = end;
  }
  return Status::OK();
}

void Assembler::Add(std::int64_t piece, FinishedRows rows) {
  MutexLock lock(mutex_);
  OpenPiece& open = open_[piece];
  (rows.status == RowStatus::kOk      ? open.counts.ok
   : rows.status == RowStatus::kError ? open.counts.error
                                      : open.counts.skipped) += rows.batch.num_rows();
  for (const RowError& error : rows.errors) {
    if (error.step != "read") open.codes.insert(error.code);  // no model has seen the others
  }
  if (rows.status == RowStatus::kSkipped) {
    for (const RowRef& row : rows.batch.rows) {
      const auto at = static_cast<std::size_t>(row.index / 8);
      if (open.skipped_rows.size() <= at) open.skipped_rows.resize(at + 1);
      open.skipped_rows[at] = static_cast<char>(open.skipped_rows[at] | 1 << row.index % 8);
    }
  }
  if (Kept(rows.status)) {
    open.kept.push_back(std::move(rows));
  } else if (rows.status == RowStatus::kError) {
    open.errors.push_back(std::move(rows));
  }
}

Assembler::OpenPiece Assembler::Take(const Piece& piece) {
  MutexLock lock(mutex_);
  auto open = open_.extract(piece.number);
  return open.empty() ? OpenPiece() : std::move(open.mapped());
}

void Assembler::Drop(const Piece& piece) {
  Take(piece);
}

Result<std::shared_ptr<arrow::RecordBatch>> Assembler::OutputRows(const FinishedRows& rows) const {
  const std::int64_t count = rows.batch.num_rows();
  const auto& source = rows.status == RowStatus::kOk ? rows.batch.columns : rows.batch.kept;
  arrow::ArrayVector columns;
  const int own = options_.schema->num_fields() - 3;
  for (int i = 0; i < own; ++i) {
    const auto& field = options_.schema->field(i);
    const int index = source->schema()->GetFieldIndex(field->name());
    if (index >= 0) {
      columns.push_back(source->column(index));
    } else {
      MS_CHECK(rows.status != RowStatus::kOk);  // a row that is ok has every column
      MS_ASSIGN_OR_RETURN(columns.emplace_back(), arrow::MakeArrayOfNull(field->type(), count));
    }
  }
  MS_ASSIGN_OR_RETURN(columns.emplace_back(), RepeatText(StatusName(rows.status), count));
  MS_ASSIGN_OR_RETURN(
      columns.emplace_back(), ErrorColumn(rows, options_.schema->field(own + 1)->type())
  );
  MS_ASSIGN_OR_RETURN(
      columns.emplace_back(),
      SourceColumn(
          rows.batch, options_.files, options_.version, options_.schema->field(own + 2)->type()
      )
  );
  return arrow::RecordBatch::Make(options_.schema, count, std::move(columns));
}

Status Assembler::End(const Piece& piece) {
  OpenPiece open = Take(piece);
  MS_CHECK(open.counts.total() == piece.Count(0, piece.split.num_rows));
  FinishedSplit finished;
  finished.split = piece.split.number;
  finished.piece = piece.number;
  finished.counts = open.counts;
  finished.codes = std::move(open.codes);
  finished.skipped_rows = std::move(open.skipped_rows);
  if (!finished.skipped_rows.empty()) {
    finished.skipped_rows.resize(static_cast<std::size_t>(piece.split.num_rows + 7) / 8);
  }
  MS_ASSIGN_OR_RETURN(finished.batches, InOrder(open.kept, &finished.places));
  std::vector<std::int64_t> ignored;
  MS_ASSIGN_OR_RETURN(finished.errors, InOrder(open.errors, &ignored));
  open = {};
  return done_(std::move(finished));
}

Result<arrow::RecordBatchVector> Assembler::InOrder(
    const std::vector<FinishedRows>& pieces, std::vector<std::int64_t>* places
) const {
  // Pieces that came in order, as those of jobs without a model do, need no copy.
  arrow::RecordBatchVector batches;
  std::vector<std::int64_t> indices;
  for (const FinishedRows& piece : pieces) {
    MS_ASSIGN_OR_RETURN(batches.emplace_back(), OutputRows(piece));
    for (const RowRef& row : piece.batch.rows) indices.push_back(row.index);
  }
  *places = indices;
  if (std::is_sorted(indices.begin(), indices.end())) return batches;
  std::sort(places->begin(), places->end());
  MS_ASSIGN_OR_RETURN(auto all, arrow::ConcatenateRecordBatches(batches));
  std::vector<std::int64_t> order(indices.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return indices[static_cast<std::size_t>(a)] < indices[static_cast<std::size_t>(b)];
  });
  MS_ASSIGN_OR_RETURN(all, TakeColumns(all, order));
  return arrow::RecordBatchVector{std::move(all)};
}

}  // namespace millstream
