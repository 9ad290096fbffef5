// SPDX-License-Identifier: Apache-2.0
// Arrow IPC files, with LZ4 buffers, which every reader of such files knows.
#include <utility>

#include "arrow/io/file.h"
#include "arrow/ipc/reader.h"
#include "arrow/ipc/writer.h"
#include "arrow/type.h"
#include "arrow/util/compression.h"
#include "arrow/util/key_value_metadata.h"
#include "data/format_files.h"
#include "data/restore.h"

namespace millstream {
namespace {

class ArrowWriter final : public TableWriter {
 public:
  ArrowWriter(SchemaPtr stored, std::shared_ptr<arrow::ipc::RecordBatchWriter> writer)
      : stored_(std::move(stored)), writer_(std::move(writer)) {}

  Status Write(const arrow::RecordBatch& batch) override {
    MS_ASSIGN_OR_RETURN(const auto decoded, Restore(batch, stored_));
    return writer_->WriteRecordBatch(*decoded);
  }
  Status Close() override { return writer_->Close(); }

 private:
  const SchemaPtr stored_;
  const std::shared_ptr<arrow::ipc::RecordBatchWriter> writer_;
};

class ArrowBatches final : public arrow::RecordBatchReader {
 public:
  ArrowBatches(SchemaPtr schema, std::shared_ptr<arrow::ipc::RecordBatchFileReader> file)
      : schema_(std::move(schema)), file_(std::move(file)) {}

  SchemaPtr schema() const override { return schema_; }
  Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    batch->reset();
    if (next_ == file_->num_record_batches()) return Status::OK();
    MS_ASSIGN_OR_RETURN(const auto stored, file_->ReadRecordBatch(next_++));
    MS_RETURN_NOT_OK(stored->ValidateFull());
    return Restore(*stored, schema_).Value(batch);
  }

 private:
  const SchemaPtr schema_;
  const std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  int next_ = 0;
};

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeArrowWriter(
    const SchemaPtr& schema, SinkPtr sink, const FileMetadata& metadata
) {
  auto options = arrow::ipc::IpcWriteOptions::Defaults();
  options.use_threads = false;
  MS_ASSIGN_OR_RETURN(options.codec, arrow::util::Codec::Create(arrow::Compression::LZ4_FRAME));
  auto file_metadata = std::make_shared<arrow::KeyValueMetadata>();
  for (const auto& [key, value] : metadata) file_metadata->Append(key, value);
  // A file holds one dictionary for all its batches; ours come one by one, so dictionaries are
  // decoded.
  arrow::FieldVector fields;
  for (const auto& field : schema->fields()) {
    fields.push_back(field->WithType(WithoutDictionaries(field->type())));
  }
  const auto stored = arrow::schema(std::move(fields), schema->metadata());
  MS_ASSIGN_OR_RETURN(
      auto writer, arrow::ipc::MakeFileWriter(std::move(sink), stored, options, file_metadata)
  );
  return std::make_unique<ArrowWriter>(stored, std::move(writer));
}

Result<BatchReaderPtr> OpenWrittenArrow(SourcePtr file, const std::string& name, SchemaPtr schema) {
  auto reader = arrow::ipc::RecordBatchFileReader::Open(std::move(file));
  if (!reader.ok()) {
    return reader.status().WithMessage("cannot read ", name, ": ", reader.status().message());
  }
  return std::make_shared<ArrowBatches>(std::move(schema), std::move(reader).ValueUnsafe());
}

}  // namespace millstream
