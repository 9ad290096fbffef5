// SPDX-License-Identifier: Apache-2.0
// Writes record batches as one file of an output format, and reads such files back.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/io/type_fwd.h"
#include "arrow/record_batch.h"
#include "base/status.h"

namespace millstream {

enum class OutputFormat { kParquet, kJsonl, kCsv, kArrow, kOpenAiBatch };

std::string_view OutputFormatName(OutputFormat format);    // "parquet", "jsonl", ...
std::string_view OutputFormatSuffix(OutputFormat format);  // ".parquet", ...
Result<OutputFormat> OutputFormatFromName(std::string_view name);

/// One file being written. One thread.
class TableWriter {
 public:
  virtual ~TableWriter() = default;
  /// Holds back at most a row group (64 MiB of values) in memory. REQUIRES: a batch of the file's
  /// schema.
  virtual Status Write(const arrow::RecordBatch& batch) = 0;
  /// Ends the file; the sink is left open. A file without rows is a whole file too.
  virtual Status Close() = 0;
};

/// Starts a file of `schema` on `sink`. `metadata` goes into the file where the format has a place
/// for it. Invalid names the column whose type the format cannot hold, so a plan can be checked by
/// a writer on a null sink. `inputs` names the job's input files, by their number.
Result<std::unique_ptr<TableWriter>> MakeTableWriter(
    OutputFormat format,
    std::shared_ptr<arrow::Schema> schema,
    std::shared_ptr<arrow::io::OutputStream> sink,
    const std::map<std::string, std::string>& metadata,
    const std::vector<std::string>& inputs = {}
);

/// Reads a file that a TableWriter wrote back into `schema`, batch by batch, exactly as it was
/// written; `name` is what messages call it. (In CSV and JSONL JSON texts come back in their
/// compact form, and an index of a dictionary may be another.) A file that is not what a
/// TableWriter of the schema writes gives a Status that names it and the place; so does, in a
/// format whose rows say whose they are, one of another job than `job`.
Result<std::shared_ptr<arrow::RecordBatchReader>> OpenWritten(
    OutputFormat format,
    std::shared_ptr<arrow::io::RandomAccessFile> file,
    const std::string& name,
    std::shared_ptr<arrow::Schema> schema,
    const std::vector<std::string>& inputs = {},
    const std::string& job = ""
);

}  // namespace millstream
