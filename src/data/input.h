// SPDX-License-Identifier: Apache-2.0
// The pinned input of a job: which files, what is in them, and where their records are.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrow/type_fwd.h"
#include "base/status.h"
#include "data/row.h"

namespace millstream {

enum class FileFormat { kJsonl, kJson, kCsv, kTsv, kText, kParquet, kArrowFile, kArrowStream };
enum class Compression { kNone, kGzip, kZstd };

/// The name that `format:` takes ("jsonl", "json", "csv", "tsv", "text", "parquet", "arrow",
/// "arrows").
std::string_view FormatName(FileFormat format);
std::optional<FileFormat> FormatFromName(std::string_view name);

/// What the job file says of its input.
struct InputOptions {
  /// Files, globs and folders, relative ones below `base_folder`; s3://bucket/... on S3.
  std::vector<std::string> paths;
  std::string base_folder;
  std::optional<FileFormat> format;  // else from each file's suffix
  std::vector<std::string> columns;  // empty: all
  /// Declared column types, which inference then leaves alone. A null type is `json`: any value,
  /// kept as its text.
  std::vector<std::pair<std::string, std::shared_ptr<arrow::DataType>>> schema;
  /// Take only `_status` ok rows of another job's output and leave out its `_` columns.
  bool drop_job_columns = true;
};

/// One file of the snapshot.
struct InputFile {
  std::string path;  // to open it
  std::string
      name;  // as the snapshot lists it: relative to the job file's folder where it is below it
  FileFormat format = FileFormat::kJsonl;
  Compression compression = Compression::kNone;
  std::uint64_t size_bytes = 0;
  std::int64_t mtime_ns = 0;
  std::string etag;        // of an S3 object: names the version that is read; the time is 0 then
  std::uint64_t hash = 0;  // xxh3 of the bytes that indexing read: the whole text file, a Parquet
                           // or Arrow file's footer
  std::int64_t num_records = 0;
  /// Text formats: byte offset (of the uncompressed text) of records 1, 4097, 8193, ..., then that
  /// of the end. Parquet and Arrow: how many records stand before each row group or record batch,
  /// then num_records.
  std::vector<std::uint64_t> positions;
  /// Text formats: the physical lines on which records 1, 4097, ... begin.
  std::vector<std::uint64_t> lines;
  /// Column names of a CSV or TSV file's header line, in file order.
  std::vector<std::string> header;
};

/// How many values of a column do not fit the type it was given.
struct ColumnFit {
  std::string column;
  std::int64_t num_values = 0;
  std::int64_t num_misfits = 0;
};

/// The pinned input. Immutable once taken.
struct Snapshot {
  std::vector<InputFile> files;
  /// Every column the rows have, inferred or declared, in order of first appearance.
  std::shared_ptr<arrow::Schema> schema;
  std::vector<ColumnFit> fits;  // text formats: columns with values that will become error rows
  std::int64_t num_rows = 0;
  /// The input is another job's output: its rows that are not ok count as skipped.
  bool is_job_output = false;
};

/// The type of a column that keeps any JSON value as its text: utf8 with field metadata
/// `millstream.type: json` on its field.
std::shared_ptr<arrow::Field> JsonTextField(std::string name);
bool IsJsonText(const arrow::Field& field);

/// Lists, sorts, indexes and types the input, in one pass over text files and from the footers of
/// the others. Fails with one clear message on a missing file, an empty glob, a file of another
/// format, a truncated Parquet file.
Result<Snapshot> TakeSnapshot(const InputOptions& options, std::stop_token stop);

/// Returns OK if every file still has the pinned size and time (or, where the time differs, the
/// pinned hash), or etag, else a Status that names the file.
Status CheckUnchanged(const Snapshot& snapshot);

/// Consecutive records of one file.
struct RecordRange {
  std::int32_t file = 0;
  std::int64_t first_record = 1;
  std::int64_t num_records = 0;
};

/// Consecutive input rows: the unit of planning and commit.
struct Split {
  std::int64_t number = 0;
  std::vector<RecordRange> ranges;
  std::int64_t num_rows = 0;
};

/// Rows [begin, end) of a split, by their place in it; and the name of one.
Split SliceOf(const Split& split, std::int64_t begin, std::int64_t end);
RowId RowAt(const Split& split, std::int64_t place);

/// Cuts the input into splits of at most `max_rows` rows, and of about `max_bytes` where positions
/// or row groups tell. May span small files. Every row is in exactly one split, in input order.
std::vector<Split> CutSplits(
    const Snapshot& snapshot, std::int64_t max_rows, std::uint64_t max_bytes
);

}  // namespace millstream
