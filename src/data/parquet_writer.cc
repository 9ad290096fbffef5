// SPDX-License-Identifier: Apache-2.0
// Parquet files: zstd, statistics, page checksums, and the Arrow schema beside Parquet's own, so
// that types that Parquet lacks come back.
#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "arrow/array.h"
#include "arrow/io/file.h"
#include "arrow/type.h"
#include "arrow/util/byte_size.h"
#include "arrow/util/key_value_metadata.h"
#include "data/format_files.h"
#include "data/json_value.h"
#include "data/restore.h"
#include "parquet/arrow/reader.h"
#include "parquet/arrow/schema.h"
#include "parquet/arrow/writer.h"
#include "parquet/properties.h"

namespace millstream {
namespace {

using arrow::Type;

constexpr int kZstdLevel = 1;
constexpr std::int64_t kRowGroupBytes = std::int64_t{64} << 20;
constexpr std::int64_t kRowGroupRowsMax = std::int64_t{1} << 20;

std::shared_ptr<parquet::ArrowWriterProperties> ArrowProperties() {
  return parquet::ArrowWriterProperties::Builder().store_schema()->build();
}

// Whether the first values repeat so often that a dictionary of them pays. Text and ids rarely do,
// and finding that out costs the encoder as much as all the rest. `view(i)`: the bytes of a value.
template <typename View>
bool ValuesRepeat(const arrow::Array& array, View view) {
  constexpr std::int64_t kSampledMax = 256;
  std::unordered_set<std::string_view> distinct;
  std::int64_t sampled = 0;
  for (std::int64_t i = 0; i < array.length() && sampled < kSampledMax; ++i) {
    if (array.IsNull(i)) continue;
    distinct.insert(view(i));
    ++sampled;
  }
  return static_cast<std::int64_t>(distinct.size()) * 2 <= sampled;
}

bool ValuesRepeat(const arrow::Array& array) {
  const Type::type id = array.type_id();
  if (id == Type::STRING || id == Type::BINARY) {
    const auto& texts = static_cast<const arrow::BinaryArray&>(array);
    return ValuesRepeat(array, [&](std::int64_t i) { return texts.GetView(i); });
  }
  if (id == Type::LARGE_STRING || id == Type::LARGE_BINARY) {
    const auto& texts = static_cast<const arrow::LargeBinaryArray&>(array);
    return ValuesRepeat(array, [&](std::int64_t i) { return texts.GetView(i); });
  }
  if (!arrow::is_primitive(id) || array.type()->bit_width() < 8) return true;
  const auto width = static_cast<std::size_t>(array.type()->bit_width() / 8);
  const char* values = reinterpret_cast<const char*>(array.data()->GetValues<std::uint8_t>(1, 0));
  return ValuesRepeat(array, [&](std::int64_t i) {
    return std::string_view(values + static_cast<std::size_t>(array.offset() + i) * width, width);
  });
}

// Chooses the encoding of a column, and of the fields in it, by the values it begins with.
void ChooseEncoding(
    const arrow::Array& array,
    std::vector<std::string> path,
    parquet::WriterProperties::Builder& properties
) {
  if (array.type_id() == Type::STRUCT) {
    const auto& structs = static_cast<const arrow::StructArray&>(array);
    for (int i = 0; i < structs.num_fields(); ++i) {
      std::vector<std::string> inner = path;
      inner.push_back(structs.struct_type()->field(i)->name());
      ChooseEncoding(*structs.field(i), std::move(inner), properties);
    }
    return;
  }
  if (ValuesRepeat(array)) return;
  const auto column = std::make_shared<parquet::schema::ColumnPath>(std::move(path));
  properties.disable_dictionary(column);
  if (arrow::is_integer(array.type_id())) {
    properties.encoding(column, parquet::Encoding::DELTA_BINARY_PACKED);
  }
}

class ParquetWriter final : public TableWriter {
 public:
  ParquetWriter(SchemaPtr schema, SinkPtr sink, const FileMetadata& metadata)
      : schema_(std::move(schema)), sink_(std::move(sink)), metadata_(metadata) {}

  Status Write(const arrow::RecordBatch& batch) override {
    if (batch.num_rows() == 0) return Status::OK();
    if (writer_ == nullptr) MS_RETURN_NOT_OK(Open(&batch));
    MS_ASSIGN_OR_RETURN(const std::int64_t bytes, arrow::util::ReferencedBufferSize(batch));
    if (group_bytes_ > 0 && group_bytes_ + bytes > kRowGroupBytes) {
      MS_RETURN_NOT_OK(writer_->NewBufferedRowGroup());
      group_bytes_ = 0;
    }
    group_bytes_ += bytes;
    return writer_->WriteRecordBatch(batch);
  }

  Status Close() override {
    if (writer_ == nullptr) MS_RETURN_NOT_OK(Open(nullptr));
    return writer_->Close();
  }

 private:
  // Waits for the first batch, which shows what to encode how.
  Status Open(const arrow::RecordBatch* first) {
    parquet::WriterProperties::Builder properties;
    properties.compression(parquet::Compression::ZSTD)->compression_level(kZstdLevel);
    properties.max_row_group_length(kRowGroupRowsMax)->enable_page_checksum();
    for (int i = 0; first != nullptr && i < first->num_columns(); ++i) {
      ChooseEncoding(*first->column(i), {schema_->field(i)->name()}, properties);
    }
    MS_ASSIGN_OR_RETURN(
        writer_,
        parquet::arrow::FileWriter::Open(
            *schema_, arrow::default_memory_pool(), sink_, properties.build(), ArrowProperties()
        )
    );
    auto file_metadata = std::make_shared<arrow::KeyValueMetadata>();
    for (const auto& [key, value] : metadata_) file_metadata->Append(key, value);
    return writer_->AddKeyValueMetadata(file_metadata);
  }

  const SchemaPtr schema_;
  const SinkPtr sink_;
  const FileMetadata metadata_;
  std::unique_ptr<parquet::arrow::FileWriter> writer_;
  std::int64_t group_bytes_ = 0;
};

class ParquetBatches final : public arrow::RecordBatchReader {
 public:
  ParquetBatches(
      SchemaPtr schema,
      std::unique_ptr<parquet::arrow::FileReader> file,
      std::unique_ptr<arrow::RecordBatchReader> rows
  )
      : schema_(std::move(schema)), file_(std::move(file)), rows_(std::move(rows)) {}

  SchemaPtr schema() const override { return schema_; }
  Status ReadNext(std::shared_ptr<arrow::RecordBatch>* batch) override {
    batch->reset();
    std::shared_ptr<arrow::RecordBatch> stored;
    MS_RETURN_NOT_OK(rows_->ReadNext(&stored));
    return stored == nullptr ? Status::OK() : Restore(*stored, schema_).Value(batch);
  }

 private:
  const SchemaPtr schema_;
  const std::unique_ptr<parquet::arrow::FileReader> file_;
  const std::unique_ptr<arrow::RecordBatchReader> rows_;
};

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeParquetWriter(
    SchemaPtr schema, SinkPtr sink, const FileMetadata& metadata
) {
  for (const auto& field : schema->fields()) {
    std::shared_ptr<parquet::SchemaDescriptor> ignored;
    const Status status = parquet::arrow::ToParquetSchema(
        arrow::schema({field}).get(),
        *parquet::default_writer_properties(),
        *ArrowProperties(),
        &ignored
    );
    if (!status.ok()) {
      return Status::Invalid(
          "column ",
          field->name(),
          " has type ",
          TypeName(*field->type()),
          ", which Parquet cannot hold: ",
          "leave it out, set another type, or choose format: arrow"
      );
    }
  }
  return std::make_unique<ParquetWriter>(std::move(schema), std::move(sink), metadata);
}

Result<BatchReaderPtr> OpenWrittenParquet(
    SourcePtr source, const std::string& name, SchemaPtr schema
) {
  constexpr std::int64_t kBatchRows = 4096;
  const auto open = [&]() -> Result<BatchReaderPtr> {
    auto properties = parquet::default_reader_properties();
    properties.set_page_checksum_verification(true);
    parquet::arrow::FileReaderBuilder builder;
    MS_RETURN_NOT_OK(builder.Open(std::move(source), properties));
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_batch_size(kBatchRows);
    MS_ASSIGN_OR_RETURN(auto file, builder.properties(arrow_properties)->Build());
    MS_ASSIGN_OR_RETURN(auto rows, file->GetRecordBatchReader());
    return std::make_shared<ParquetBatches>(std::move(schema), std::move(file), std::move(rows));
  };
  auto reader = open();
  if (!reader.ok()) {
    return reader.status().WithMessage("cannot read ", name, ": ", reader.status().message());
  }
  return reader;
}

}  // namespace millstream
