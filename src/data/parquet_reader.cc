// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <exception>
#include <utility>

#include "arrow/table.h"
#include "data/bounded_pool.h"
#include "data/file_reader.h"
#include "data/listing.h"
#include "data/open_input.h"
#include "data/plain_array.h"
#include "data/table_rows.h"
#include "parquet/arrow/reader.h"
#include "parquet/arrow/schema.h"
#include "parquet/file_reader.h"
#include "parquet/metadata.h"
#include "parquet/properties.h"

namespace millstream {
namespace {

// Footers of untrusted files may claim anything.
constexpr std::int32_t kThriftStringBytesMax = 64 << 20;
constexpr std::int32_t kThriftContainerMax = 1'000'000;
constexpr std::int64_t kStreamBufferBytes = 64 << 10;
constexpr std::int64_t kObjectBufferBytes = 1 << 20;  // a request each
constexpr std::int64_t kBatchRowsMax = 16 << 10;

Result<std::unique_ptr<parquet::arrow::FileReader>> OpenReader(
    const InputFile& input,
    const std::shared_ptr<arrow::io::RandomAccessFile>& file,
    std::int64_t batch_rows,
    std::shared_ptr<parquet::FileMetaData> metadata
) {
  parquet::ReaderProperties properties(BoundedPool());
  properties.enable_buffered_stream();
  properties.set_buffer_size(input.etag.empty() ? kStreamBufferBytes : kObjectBufferBytes);
  properties.set_thrift_string_size_limit(kThriftStringBytesMax);
  properties.set_thrift_container_size_limit(kThriftContainerMax);
  properties.set_page_checksum_verification(true);
  parquet::ArrowReaderProperties arrow_properties;
  arrow_properties.set_use_threads(false);
  arrow_properties.set_pre_buffer(false);
  arrow_properties.set_batch_size(batch_rows);
  parquet::arrow::FileReaderBuilder builder;
  Status opened = builder.Open(file, properties, std::move(metadata));
  if (!opened.ok()) {
    MS_RETURN_NOT_OK(ReadFailure(*file));
    return opened;
  }
  builder.properties(arrow_properties);
  builder.memory_pool(BoundedPool());
  return builder.Build();
}

void AddLeaves(const parquet::arrow::SchemaField& field, std::vector<int>& leaves) {
  if (field.is_leaf()) leaves.push_back(field.column_index);
  for (const auto& child : field.children) AddLeaves(child, leaves);
}

class ParquetFileReader final : public FileReader {
 public:
  ParquetFileReader(const InputFile& file, std::shared_ptr<arrow::Schema> schema)
      : file_(file), schema_(std::move(schema)) {}

  Status Init() {
    MS_ASSIGN_OR_RETURN(bytes_, OpenInput(file_));
    MS_ASSIGN_OR_RETURN(const auto reader, OpenReader(file_, bytes_, 1, nullptr));
    metadata_ = reader->parquet_reader()->metadata();
    for (const auto& field : reader->manifest().schema_fields) {
      if (schema_->GetFieldIndex(field.field->name()) >= 0) AddLeaves(field, leaves_);
    }
    std::int64_t record = 1;
    for (int i = 0; i < metadata_->num_row_groups(); ++i) {
      group_starts_.push_back(record);
      record += metadata_->RowGroup(i)->num_rows();
    }
    group_starts_.push_back(record);
    return record - 1 == file_.num_records ? Status::OK() : Changed();
  }

  Status Seek(std::int64_t record) override {
    if (record < 1 || record >= group_starts_.back()) return Changed();
    const auto next = std::upper_bound(group_starts_.begin(), group_starts_.end(), record);
    const int group = static_cast<int>(next - group_starts_.begin()) - 1;
    if (group != group_ || record < next_record_) MS_RETURN_NOT_OK(OpenGroup(group));
    while (next_record_ < record) {
      MS_RETURN_NOT_OK(Fill());
      const std::int64_t skip =
          std::min(record - next_record_, pending_.columns->num_rows() - offset_);
      offset_ += skip;
      next_record_ += skip;
    }
    return Status::OK();
  }

  Result<RowBatch> Read(std::int64_t max_rows) override {
    if (group_ < 0 || next_record_ == group_starts_[static_cast<std::size_t>(group_) + 1]) {
      MS_RETURN_NOT_OK(Seek(next_record_));
    }
    MS_RETURN_NOT_OK(Fill());
    const std::int64_t length = std::min(max_rows, pending_.columns->num_rows() - offset_);
    RowBatch rows = SliceRows(pending_, offset_, length);
    offset_ += length;
    next_record_ += length;
    return rows;
  }

 private:
  Status Changed() const {
    return Conflict(file_.name + " has other rows than when the job was made: it was changed");
  }

  std::int64_t group_end() const { return group_starts_[static_cast<std::size_t>(group_) + 1]; }

  Status OpenGroup(int group) {
    group_ = group;
    next_record_ = group_starts_[static_cast<std::size_t>(group)];
    pending_ = {};
    offset_ = 0;
    damaged_ = false;
    if (leaves_.empty()) return Status::OK();
    const auto info = metadata_->RowGroup(group);
    const std::int64_t row_bytes = std::max<std::int64_t>(
        info->total_byte_size() / std::max<std::int64_t>(info->num_rows(), 1), 1
    );
    return OpenBatches(std::clamp<std::int64_t>(kBatchBytesMax / row_bytes, 1, kBatchRowsMax));
  }

  Status OpenBatches(std::int64_t batch_rows) {
    batches_.reset();
    MS_ASSIGN_OR_RETURN(reader_, OpenReader(file_, bytes_, batch_rows, metadata_));
    auto batches = reader_->GetRecordBatchReader({group_}, leaves_);
    if (batches.ok()) {
      batches_ = std::move(batches).ValueUnsafe();
    } else {
      MS_RETURN_NOT_OK(ReadFailure(*bytes_));
      damaged_ = true;
    }
    return Status::OK();
  }

  // Makes sure that pending_ holds a row.
  Status Fill() {
    if (pending_.columns != nullptr && offset_ < pending_.columns->num_rows()) return Status::OK();
    offset_ = 0;
    const std::int64_t left = group_end() - next_record_;
    if (leaves_.empty()) {
      const auto none = arrow::RecordBatch::Make(
          arrow::schema({}), std::min(left, kBatchRowsMax), arrow::ArrayVector()
      );
      MS_ASSIGN_OR_RETURN(pending_, TableRows(*none, schema_, next_record_));
      return Status::OK();
    }
    if (!damaged_) {
      auto batch = NextBatch();
      if (batch.ok() && *batch != nullptr && (*batch)->num_rows() > 0 &&
          (*batch)->num_rows() <= left) {
        MS_ASSIGN_OR_RETURN(pending_, TableRows(**batch, schema_, next_record_));
        return Status::OK();
      }
      if (batch.status().IsOutOfMemory()) return batch.status();
      MS_RETURN_NOT_OK(ReadFailure(*bytes_));
      MS_ASSIGN_OR_RETURN(const auto intact, ReadUpToDamage());
      if (intact != nullptr) {
        MS_ASSIGN_OR_RETURN(pending_, TableRows(*intact, schema_, next_record_));
        return Status::OK();
      }
    }
    MS_ASSIGN_OR_RETURN(
        pending_,
        UnreadableRows(
            schema_,
            next_record_,
            std::min(left, kBatchRowsMax),
            "the data of its row group is damaged"
        )
    );
    return Status::OK();
  }

  Result<std::shared_ptr<arrow::RecordBatch>> NextBatch() {
    try {
      std::shared_ptr<arrow::RecordBatch> batch;
      MS_RETURN_NOT_OK(batches_->ReadNext(&batch));
      return batch;
    } catch (const std::bad_alloc&) {
      return Status::OutOfMemory("no memory for ", file_.name);
    } catch (const std::exception&) {
      return Status::Invalid("damaged");
    }
  }

  // The batch that begins at next_record_ holds damage. Reads its rows one by one up to it, so that
  // which rows are lost does not depend on batches. Returns null if the first is lost.
  Result<std::shared_ptr<arrow::RecordBatch>> ReadUpToDamage() {
    MS_RETURN_NOT_OK(OpenBatches(1));
    std::vector<std::shared_ptr<arrow::RecordBatch>> rows;
    for (std::int64_t record = group_starts_[static_cast<std::size_t>(group_)];
         !damaged_ && record < group_end();
         ++record) {
      auto row = NextBatch();
      if (row.status().IsOutOfMemory()) return row.status();
      MS_RETURN_NOT_OK(ReadFailure(*bytes_));
      if (!row.ok() || *row == nullptr || (*row)->num_rows() != 1) break;
      if (record >= next_record_) rows.push_back(std::move(row).ValueUnsafe());
      if (static_cast<std::int64_t>(rows.size()) == kBatchRowsMax) break;
    }
    damaged_ = true;
    if (rows.empty()) return nullptr;
    return arrow::ConcatenateRecordBatches(rows);
  }

  const InputFile& file_;
  const std::shared_ptr<arrow::Schema> schema_;
  std::shared_ptr<arrow::io::RandomAccessFile> bytes_;
  std::shared_ptr<parquet::FileMetaData> metadata_;
  std::vector<int> leaves_;
  std::vector<std::int64_t> group_starts_;              // first records, then one beyond the last
  std::unique_ptr<parquet::arrow::FileReader> reader_;  // outlives batches_
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  int group_ = -1;
  std::int64_t next_record_ = 1;
  RowBatch pending_;
  std::int64_t offset_ = 0;  // of next_record_ in pending_
  bool damaged_ = false;
};

}  // namespace

Result<std::shared_ptr<arrow::Schema>> IndexParquetFile(InputFile& file) {
  try {
    MS_ASSIGN_OR_RETURN(const auto bytes, OpenInput(file));
    auto opened = OpenReader(file, bytes, 1, nullptr);
    if (!opened.ok()) {
      MS_RETURN_NOT_OK(ReadFailure(*bytes));
      return Status::Invalid(
          file.name,
          " is no complete Parquet file: it is truncated or damaged (",
          opened.status().message(),
          ")"
      );
    }
    const auto& reader = *opened;
    const auto metadata = reader->parquet_reader()->metadata();
    file.positions.clear();
    file.num_records = 0;
    for (int i = 0; i < metadata->num_row_groups(); ++i) {
      const std::int64_t num_rows = metadata->RowGroup(i)->num_rows();
      if (num_rows < 0) return Status::Invalid(file.name, " has a row group of a negative size");
      file.positions.push_back(static_cast<std::uint64_t>(file.num_records));
      file.num_records += num_rows;
    }
    file.positions.push_back(static_cast<std::uint64_t>(file.num_records));
    MS_ASSIGN_OR_RETURN(file.hash, HashFile(file));
    std::shared_ptr<arrow::Schema> schema;
    const Status typed = reader->GetSchema(&schema);
    if (!typed.ok()) {
      return Status::Invalid("the schema of ", file.name, " cannot be read: ", typed.message());
    }
    return PlainSchema(*schema, file.name);
  } catch (const std::exception& error) {
    return Status::Invalid(
        file.name, " is no complete Parquet file: it is truncated or damaged (", error.what(), ")"
    );
  }
}

Result<std::unique_ptr<FileReader>> OpenParquetFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
) {
  try {
    auto reader = std::make_unique<ParquetFileReader>(file, std::move(schema));
    MS_RETURN_NOT_OK(reader->Init());
    return reader;
  } catch (const std::exception& error) {
    return Status::Invalid("cannot read ", file.name, ": ", error.what());
  }
}

}  // namespace millstream
