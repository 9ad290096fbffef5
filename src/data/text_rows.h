// SPDX-License-Identifier: Apache-2.0
// Builds batches of rows out of the records of a text file. What is wrong with a record becomes its
// row's error.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "data/input.h"
#include "data/row.h"
#include "data/text_column.h"
#include "data/text_scanner.h"

namespace millstream {

/// The name of the one column of a text file.
inline constexpr const char* kTextColumn = "text";

/// The rows of one batch, and what was wrong with some of them.
struct RowBatch {
  std::shared_ptr<arrow::RecordBatch> columns;
  std::vector<std::pair<std::int64_t, RowError>> errors;
};

/// One thread. Each Append makes one row, whatever the record.
class TextRows {
 public:
  virtual ~TextRows() = default;
  TextRows(const TextRows&) = delete;
  TextRows& operator=(const TextRows&) = delete;

  Status Append(const TextRecord& record);
  std::int64_t num_rows() const { return num_rows_; }
  /// Ends the batch and begins the next one. Rows with errors are null in all columns.
  Result<RowBatch> Finish();

 protected:
  TextRows(std::shared_ptr<arrow::Schema> schema, std::vector<TextColumn> columns)
      : schema_(std::move(schema)), columns_(std::move(columns)) {}

  // Appends one value to each column, or Fails the row and leaves some of them one short.
  virtual Status AppendValues(const TextRecord& record) = 0;
  Status Fail(const char* code, const TextRecord& record, std::string_view why);
  // Passes an OutOfMemory on; anything else is the value's fault.
  Status FailValue(
      const TextRecord& record, const TextColumn& column, const Status& why, std::string_view value
  );

  std::vector<TextColumn>& columns() { return columns_; }

 private:
  const std::shared_ptr<arrow::Schema> schema_;
  std::vector<TextColumn> columns_;
  std::vector<std::pair<std::int64_t, RowError>> errors_;
  std::int64_t num_rows_ = 0;
};

/// Rows of `schema` from the records of `file`.
Result<std::unique_ptr<TextRows>> MakeTextRows(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
);

/// Makes the named rows null in every column.
std::shared_ptr<arrow::RecordBatch> WithoutRows(
    const arrow::RecordBatch& batch, const std::vector<std::pair<std::int64_t, RowError>>& errors
);

}  // namespace millstream
