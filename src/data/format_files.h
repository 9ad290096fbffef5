// SPDX-License-Identifier: Apache-2.0
// What each output format provides to writer.cc: a writer, and the way back. One .cc per format.

#pragma once

#include <map>
#include <memory>
#include <string>

#include "data/writer.h"

namespace millstream {

using FileMetadata = std::map<std::string, std::string>;
using SchemaPtr = std::shared_ptr<arrow::Schema>;
using SinkPtr = std::shared_ptr<arrow::io::OutputStream>;
using SourcePtr = std::shared_ptr<arrow::io::RandomAccessFile>;
using BatchReaderPtr = std::shared_ptr<arrow::RecordBatchReader>;

Result<std::unique_ptr<TableWriter>> MakeParquetWriter(
    SchemaPtr schema, SinkPtr sink, const FileMetadata& metadata
);
Result<std::unique_ptr<TableWriter>> MakeArrowWriter(
    const SchemaPtr& schema, SinkPtr sink, const FileMetadata& metadata
);
Result<std::unique_ptr<TableWriter>> MakeJsonlWriter(const SchemaPtr& schema, SinkPtr sink);
Result<std::unique_ptr<TableWriter>> MakeCsvWriter(const SchemaPtr& schema, SinkPtr sink);
Result<std::unique_ptr<TableWriter>> MakeOpenAiBatchWriter(
    const SchemaPtr& schema,
    SinkPtr sink,
    const FileMetadata& metadata,
    const std::vector<std::string>& inputs
);

Result<BatchReaderPtr> OpenWrittenParquet(
    SourcePtr file, const std::string& name, SchemaPtr schema
);
Result<BatchReaderPtr> OpenWrittenArrow(SourcePtr file, const std::string& name, SchemaPtr schema);
Result<BatchReaderPtr> OpenWrittenJsonl(SourcePtr file, const std::string& name, SchemaPtr schema);
Result<BatchReaderPtr> OpenWrittenCsv(SourcePtr file, const std::string& name, SchemaPtr schema);
Result<BatchReaderPtr> OpenWrittenOpenAiBatch(
    SourcePtr file,
    const std::string& name,
    SchemaPtr schema,
    const std::vector<std::string>& inputs,
    const std::string& job
);

}  // namespace millstream
