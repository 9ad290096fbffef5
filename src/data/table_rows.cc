// SPDX-License-Identifier: Apache-2.0
#include "data/table_rows.h"

#include <map>
#include <string>
#include <vector>

#include "arrow/array/util.h"
#include "data/json_value.h"
#include "data/plain_array.h"

namespace millstream {
namespace {

std::string At(std::int64_t record) {
  return "row " + std::to_string(record) + ": ";
}

}  // namespace

Result<RowBatch> TableRows(
    const arrow::RecordBatch& batch,
    const std::shared_ptr<arrow::Schema>& schema,
    std::int64_t first_record
) {
  std::map<std::int64_t, RowError> errors;  // of a row with several, the first column's
  arrow::ArrayVector columns;
  for (const auto& field : schema->fields()) {
    std::shared_ptr<arrow::Array> column = batch.GetColumnByName(field->name());
    if (column == nullptr) {
      MS_ASSIGN_OR_RETURN(column, arrow::MakeArrayOfNull(field->type(), batch.num_rows()));
      columns.push_back(std::move(column));
      continue;
    }
    std::vector<std::int64_t> rows;
    MS_ASSIGN_OR_RETURN(column, Validated(column, rows));
    const bool is_text = arrow::is_string(column->type_id());
    for (const std::int64_t row : rows) {
      const std::string why =
          is_text ? "\" is not valid UTF-8" : "\" holds a value that is broken or not valid UTF-8";
      errors.try_emplace(
          row, "read", "bad_utf8", At(first_record + row) + "column \"" + field->name() + why
      );
    }
    rows.clear();
    MS_ASSIGN_OR_RETURN(column, ToPlain(column));
    const std::string from = TypeName(*column->type());
    MS_ASSIGN_OR_RETURN(column, Convert(column, *field, rows));
    for (const std::int64_t row : rows) {
      errors.try_emplace(
          row,
          "read",
          "bad_value",
          At(first_record + row) + "column \"" + field->name() + "\" is a value of type " + from +
              " that does not fit " + TypeName(*field->type())
      );
    }
    columns.push_back(std::move(column));
  }
  RowBatch rows{arrow::RecordBatch::Make(schema, batch.num_rows(), std::move(columns)), {}};
  rows.errors.assign(errors.begin(), errors.end());
  if (!rows.errors.empty()) rows.columns = WithoutRows(*rows.columns, rows.errors);
  return rows;
}

Result<RowBatch> UnreadableRows(
    const std::shared_ptr<arrow::Schema>& schema,
    std::int64_t first_record,
    std::int64_t num_rows,
    const std::string& why
) {
  RowBatch rows;
  arrow::ArrayVector columns;
  for (const auto& field : schema->fields()) {
    MS_ASSIGN_OR_RETURN(auto column, arrow::MakeArrayOfNull(field->type(), num_rows));
    columns.push_back(std::move(column));
  }
  rows.columns = arrow::RecordBatch::Make(schema, num_rows, std::move(columns));
  for (std::int64_t row = 0; row < num_rows; ++row) {
    rows.errors.push_back({row, {"read", "unreadable", At(first_record + row) + why}});
  }
  return rows;
}

RowBatch SliceRows(const RowBatch& rows, std::int64_t offset, std::int64_t length) {
  RowBatch slice{rows.columns->Slice(offset, length), {}};
  for (const auto& [row, error] : rows.errors) {
    if (row >= offset && row < offset + length) slice.errors.push_back({row - offset, error});
  }
  return slice;
}

}  // namespace millstream
