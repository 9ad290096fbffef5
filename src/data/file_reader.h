// SPDX-License-Identifier: Apache-2.0
// Reads the rows of one file of the snapshot, in whatever format.

#pragma once

#include <cstdint>
#include <memory>

#include "arrow/type.h"
#include "base/status.h"
#include "data/input.h"
#include "data/text_rows.h"
#include "data/text_scanner.h"

namespace millstream {

/// One thread.
class FileReader {
 public:
  virtual ~FileReader() = default;
  /// Moves to a record, counted from 1. Moving on by a few is cheap; moving back may read the file
  /// anew.
  virtual Status Seek(std::int64_t record) = 0;
  /// The next rows: at least one, at most `max_rows`, fewer where rows are large. REQUIRES: that
  /// many are left.
  virtual Result<RowBatch> Read(std::int64_t max_rows) = 0;
};

/// `schema` is what the rows come in: columns that the file lacks are null, and types are converted
/// where the snapshot widened them. `file` must outlive the reader.
Result<std::unique_ptr<FileReader>> OpenTextFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
);
Result<std::unique_ptr<FileReader>> OpenParquetFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
);
Result<std::unique_ptr<FileReader>> OpenArrowFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
);
Result<std::unique_ptr<FileReader>> OpenFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
);

/// What a Parquet or Arrow file says of itself; fills in num_records, positions and hash.
Result<std::shared_ptr<arrow::Schema>> IndexParquetFile(InputFile& file);
Result<std::shared_ptr<arrow::Schema>> IndexArrowFile(InputFile& file);

/// How the records of a text file are framed. Settles whether a `.json` file holds an array, lines
/// or one record.
Result<Framing> FindFraming(const InputFile& file);
/// Bytes of columns that one batch holds at most, give or take one row.
inline constexpr std::int64_t kBatchBytesMax = std::int64_t{16} << 20;

}  // namespace millstream
