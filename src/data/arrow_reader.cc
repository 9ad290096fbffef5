// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <utility>

#include "arrow/io/buffered.h"
#include "arrow/ipc/reader.h"
#include "data/bounded_pool.h"
#include "data/file_reader.h"
#include "data/listing.h"
#include "data/open_input.h"
#include "data/plain_array.h"
#include "data/table_rows.h"
#include "storage/storage.h"

namespace millstream {
namespace {

// Files and streams of record batches alike.
class BatchSource {
 public:
  static Result<BatchSource> Open(const InputFile& file, std::vector<int> columns) {
    BatchSource source;
    arrow::ipc::IpcReadOptions options = arrow::ipc::IpcReadOptions::Defaults();
    options.use_threads = false;
    options.memory_pool = BoundedPool();
    options.included_fields = std::move(columns);
    MS_ASSIGN_OR_RETURN(source.bytes_, OpenInput(file));
    Status opened = source.OpenReader(file, options);
    if (!opened.ok()) {
      MS_RETURN_NOT_OK(source.failure());
      return opened;
    }
    return source;
  }

  std::shared_ptr<arrow::Schema> schema() const {
    return file_ ? file_->schema() : stream_->schema();
  }

  /// Batch `number`, or null beyond the last. A stream is read forward to it.
  Result<std::shared_ptr<arrow::RecordBatch>> Read(std::size_t number) {
    if (file_) {
      if (number >= static_cast<std::size_t>(file_->num_record_batches())) return nullptr;
      return file_->ReadRecordBatch(static_cast<int>(number));
    }
    std::shared_ptr<arrow::RecordBatch> batch;
    do {
      MS_RETURN_NOT_OK(stream_->ReadNext(&batch));
    } while (batch != nullptr && next_++ < number);
    return batch;
  }
  /// Why reading failed, if the bytes could not be had.
  Status failure() const { return ReadFailure(*bytes_); }
  bool CanRead(std::size_t number) const { return file_ || number >= next_; }

 private:
  static constexpr std::int64_t kObjectBufferBytes = 1 << 20;

  Status OpenReader(const InputFile& file, const arrow::ipc::IpcReadOptions& options) {
    if (file.format == FileFormat::kArrowFile) {
      return arrow::ipc::RecordBatchFileReader::Open(bytes_, options).Value(&file_);
    }
    std::shared_ptr<arrow::io::InputStream> stream = bytes_;
    if (!file.etag.empty()) {  // few large requests instead of one for each small read
      MS_ASSIGN_OR_RETURN(
          stream, arrow::io::BufferedInputStream::Create(kObjectBufferBytes, BoundedPool(), stream)
      );
    }
    return arrow::ipc::RecordBatchStreamReader::Open(stream, options).Value(&stream_);
  }

  std::shared_ptr<arrow::io::RandomAccessFile> bytes_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  std::shared_ptr<arrow::ipc::RecordBatchStreamReader> stream_;
  std::size_t next_ = 0;  // batch of the stream
};

class ArrowFileReader final : public FileReader {
 public:
  ArrowFileReader(const InputFile& file, std::shared_ptr<arrow::Schema> schema)
      : file_(file), schema_(std::move(schema)) {}

  Status Seek(std::int64_t record) override {
    if (record < 1 || record > file_.num_records || file_.positions.empty()) return Changed();
    const auto next = std::upper_bound(
        file_.positions.begin(), file_.positions.end(), static_cast<std::uint64_t>(record - 1)
    );
    const auto number = static_cast<std::size_t>(next - file_.positions.begin()) - 1;
    if (number != number_ || batch_.columns == nullptr) MS_RETURN_NOT_OK(Load(number));
    offset_ = record - 1 - static_cast<std::int64_t>(file_.positions[number]);
    return Status::OK();
  }

  Result<RowBatch> Read(std::int64_t max_rows) override {
    if (batch_.columns == nullptr || offset_ == batch_.columns->num_rows()) {
      const std::int64_t record =
          batch_.columns == nullptr
              ? 1
              : static_cast<std::int64_t>(file_.positions[number_]) + offset_ + 1;
      MS_RETURN_NOT_OK(Seek(record));
    }
    const std::int64_t length = std::min(max_rows, batch_.columns->num_rows() - offset_);
    RowBatch rows = SliceRows(batch_, offset_, length);
    offset_ += length;
    return rows;
  }

 private:
  Status Changed() const {
    return Conflict(file_.name + " has other rows than when the job was made: it was changed");
  }

  Status Open() {
    source_.reset();
    MS_ASSIGN_OR_RETURN(const BatchSource all, BatchSource::Open(file_, {}));
    std::vector<int> columns;
    for (int i = 0; i < all.schema()->num_fields(); ++i) {
      if (schema_->GetFieldIndex(all.schema()->field(i)->name()) >= 0) columns.push_back(i);
    }
    // An empty list would mean every column.
    if (columns.empty() && all.schema()->num_fields() > 0) columns.push_back(0);
    MS_ASSIGN_OR_RETURN(BatchSource source, BatchSource::Open(file_, std::move(columns)));
    source_ = std::make_unique<BatchSource>(std::move(source));
    return Status::OK();
  }

  Status Load(std::size_t number) {
    if (!source_ || !source_->CanRead(number)) MS_RETURN_NOT_OK(Open());
    number_ = number;
    if (number + 1 >= file_.positions.size()) return Changed();
    const auto first = static_cast<std::int64_t>(file_.positions[number]) + 1;
    const auto num_rows = static_cast<std::int64_t>(file_.positions[number + 1]) + 1 - first;
    auto batch = source_->Read(number);
    if (batch.status().IsOutOfMemory()) return batch.status();
    if (!batch.ok()) {
      MS_RETURN_NOT_OK(source_->failure());
      MS_ASSIGN_OR_RETURN(
          batch_,
          UnreadableRows(schema_, first, num_rows, "the data of its record batch is damaged")
      );
      return Status::OK();
    }
    if (*batch == nullptr || (*batch)->num_rows() != num_rows) return Changed();
    MS_ASSIGN_OR_RETURN(batch_, TableRows(**batch, schema_, first));
    return Status::OK();
  }

  const InputFile& file_;
  const std::shared_ptr<arrow::Schema> schema_;
  std::unique_ptr<BatchSource> source_;
  std::size_t number_ = 0;  // of batch_ in the file
  RowBatch batch_;
  std::int64_t offset_ = 0;
};

}  // namespace

Result<std::shared_ptr<arrow::Schema>> IndexArrowFile(InputFile& file) {
  const auto damaged = [&](const Status& why) {
    if (IsDiskTrouble(why) || IsConflict(why)) return why;  // nobody knows yet
    return Status::Invalid(
        file.name, " is no complete Arrow file: it is truncated or damaged (", why.message(), ")"
    );
  };
  auto opened = BatchSource::Open(file, {});
  if (!opened.ok()) return damaged(opened.status());
  const std::shared_ptr<arrow::Schema> schema = opened->schema();
  if (schema->num_fields() > 0) opened = BatchSource::Open(file, {0});  // counting needs one column
  if (!opened.ok()) return damaged(opened.status());
  file.num_records = 0;
  file.positions = {0};
  for (std::size_t number = 0;; ++number) {
    const auto batch = opened->Read(number);
    if (!batch.ok()) MS_RETURN_NOT_OK(opened->failure());
    if (!batch.ok()) return damaged(batch.status());
    if (*batch == nullptr) break;
    file.num_records += (*batch)->num_rows();
    file.positions.push_back(static_cast<std::uint64_t>(file.num_records));
  }
  MS_ASSIGN_OR_RETURN(file.hash, HashFile(file));
  return PlainSchema(*schema, file.name);
}

Result<std::unique_ptr<FileReader>> OpenArrowFile(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
) {
  return std::make_unique<ArrowFileReader>(file, std::move(schema));
}

}  // namespace millstream
