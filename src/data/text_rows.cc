// SPDX-License-Identifier: Apache-2.0
#include "data/text_rows.h"

#include <optional>

#include "arrow/array/data.h"
#include "arrow/array/util.h"
#include "arrow/buffer.h"
#include "arrow/util/bit_util.h"
#include "base/utf8.h"
#include "data/csv_record.h"
#include "data/json_document.h"
#include "data/json_value.h"
#include "data/name_index.h"

namespace millstream {
namespace {

constexpr std::size_t kExcerptBytes = 60;

std::string Excerpt(std::string_view text) {
  if (text.size() <= kExcerptBytes) return std::string(text);
  std::size_t end = kExcerptBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

class JsonRows final : public TextRows {
 public:
  JsonRows(std::shared_ptr<arrow::Schema> schema, std::vector<TextColumn> columns)
      : TextRows(std::move(schema), std::move(columns)), values_(this->columns().size()) {
    for (const TextColumn& column : this->columns()) names_.Add(column.name());
  }

 private:
  Status AppendValues(const TextRecord& record) override {
    if (record.unclosed) {
      return Fail("bad_json", record, "the file ends inside an array that is never closed");
    }
    const Status parsed = document_.ParseRow(record.text);
    if (!parsed.ok()) return FailParse(record, parsed);
    if (document_.root().kind() != JsonKind::kObject) {
      return Fail("bad_json", record, "the record is no JSON object");
    }
    std::fill(values_.begin(), values_.end(), std::nullopt);
    std::size_t guess = 0;
    MS_RETURN_NOT_OK(document_.root().ForEachMember([&](std::string_view name,
                                                        const JsonNode& value) {
      if (const auto place = names_.Find(name, guess)) {
        values_[*place] = value;  // of a key that stands twice, the last value counts
        guess = *place + 1;
      }
      return Status::OK();
    }));
    for (std::size_t i = 0; i < values_.size(); ++i) {
      TextColumn& column = columns()[i];
      const std::optional<JsonNode>& value = values_[i];
      const Status appended = value ? column.Append(*value) : column.AppendNull();
      if (appended.ok()) [[likely]] {
        continue;
      }
      std::string text;
      if (value) WriteJson(*value, text);
      return FailValue(record, column, appended, text);
    }
    return Status::OK();
  }

  Status FailParse(const TextRecord& record, const Status& parsed) {
    if (!parsed.IsInvalid()) return parsed;
    const std::string& why = parsed.message();
    const bool bad_text = why.find("UTF-8") != why.npos || why.find("surrogate") != why.npos;
    const bool too_deep = why.find("nests deeper") != why.npos;
    return Fail(
        bad_text   ? "bad_utf8"
        : too_deep ? "too_deep"
                   : "bad_json",
        record,
        "the record " + why
    );
  }

  NameIndex names_;
  JsonDocument document_;
  std::vector<std::optional<JsonNode>> values_;
};

// CSV records; or, with no delimiter, lines of one cell.
class CellRows final : public TextRows {
 public:
  CellRows(
      std::shared_ptr<arrow::Schema> schema,
      std::vector<TextColumn> columns,
      const std::vector<std::string>& header,
      std::optional<char> delimiter
  )
      : TextRows(std::move(schema), std::move(columns)), num_cells_(header.size()) {
    if (delimiter) csv_.emplace(*delimiter);
    NameIndex names;
    for (const std::string& name : header) names.Add(name);
    for (const TextColumn& column : this->columns()) {
      places_.push_back(names.Find(column.name(), places_.size()));
    }
  }

 private:
  Status AppendValues(const TextRecord& record) override {
    if (!IsValidUtf8(record.text)) return Fail("bad_utf8", record, "the record is not valid UTF-8");
    if (csv_) {
      const Status split = csv_->Split(record.text);
      if (!split.ok()) return Fail("bad_csv", record, split.message());
      if (csv_->cells().size() != num_cells_) {
        return Fail(
            "bad_csv",
            record,
            "the record has " + std::to_string(csv_->cells().size()) + " cells and the header " +
                std::to_string(num_cells_)
        );
      }
    }
    const CsvRecord::Cell line{record.text, true};
    for (std::size_t i = 0; i < places_.size(); ++i) {
      TextColumn& column = columns()[i];
      const std::optional<std::size_t>& place = places_[i];
      if (!place) {
        MS_RETURN_NOT_OK(column.AppendNull());
        continue;
      }
      const CsvRecord::Cell& cell = csv_ ? csv_->cells()[*place] : line;
      const Status appended = column.Append(cell.text, cell.quoted);
      if (appended.ok()) {
        [[likely]] continue;
      }
      std::string value;
      WriteJsonString(cell.text, value);
      return FailValue(record, column, appended, value);
    }
    return Status::OK();
  }

  const std::size_t num_cells_;
  std::optional<CsvRecord> csv_;
  std::vector<std::optional<std::size_t>> places_;  // of each column's cell
};

std::shared_ptr<arrow::Array> WithNulls(
    const arrow::Array& array, const std::vector<std::pair<std::int64_t, RowError>>& errors
) {
  if (!arrow::internal::may_have_validity_bitmap(array.type_id())) {
    return arrow::MakeArray(array.data());
  }
  auto data = array.data()->Copy();
  const std::int64_t bits = data->offset + data->length;
  auto bitmap = arrow::AllocateEmptyBitmap(bits).ValueOrDie();
  std::uint8_t* out = bitmap->mutable_data();
  if (data->buffers[0] != nullptr) {
    std::copy_n(data->buffers[0]->data(), arrow::bit_util::BytesForBits(bits), out);
  } else {
    arrow::bit_util::SetBitsTo(out, 0, bits, true);
  }
  for (const auto& [row, error] : errors) arrow::bit_util::ClearBit(out, data->offset + row);
  data->buffers[0] = std::move(bitmap);
  data->null_count = arrow::kUnknownNullCount;
  return arrow::MakeArray(data);
}

}  // namespace

std::shared_ptr<arrow::RecordBatch> WithoutRows(
    const arrow::RecordBatch& batch, const std::vector<std::pair<std::int64_t, RowError>>& errors
) {
  arrow::ArrayVector columns;
  for (const auto& column : batch.columns()) columns.push_back(WithNulls(*column, errors));
  return arrow::RecordBatch::Make(batch.schema(), batch.num_rows(), std::move(columns));
}

Status TextRows::Append(const TextRecord& record) {
  if (record.too_large) {
    MS_RETURN_NOT_OK(Fail("record_too_large", record, "the record is longer than 32 MiB"));
  } else {
    MS_RETURN_NOT_OK(AppendValues(record));
  }
  ++num_rows_;
  if (errors_.empty() || errors_.back().first != num_rows_ - 1) {
    [[likely]] return Status::OK();
  }
  for (TextColumn& column : columns_) {
    if (column.size() < num_rows_) MS_RETURN_NOT_OK(column.AppendNull());
  }
  return Status::OK();
}

Status TextRows::Fail(const char* code, const TextRecord& record, std::string_view why) {
  errors_.push_back(
      {num_rows_, {"read", code, "line " + std::to_string(record.line) + ": " + std::string(why)}}
  );
  return Status::OK();
}

Status TextRows::FailValue(
    const TextRecord& record, const TextColumn& column, const Status& why, std::string_view value
) {
  if (!why.IsInvalid()) return why;
  const std::string excerpt = Excerpt(value);
  std::string message = "column \"" + column.name() + "\" " + why.message();
  if (message.find("is " + excerpt) == message.npos) message += ": " + excerpt;
  return Fail("bad_value", record, message);
}

Result<RowBatch> TextRows::Finish() {
  arrow::ArrayVector arrays;
  for (TextColumn& column : columns_) {
    MS_ASSIGN_OR_RETURN(auto array, column.Finish());
    arrays.push_back(std::move(array));
  }
  RowBatch batch{
      arrow::RecordBatch::Make(schema_, num_rows_, std::move(arrays)), std::move(errors_)
  };
  if (!batch.errors.empty()) batch.columns = WithoutRows(*batch.columns, batch.errors);
  errors_.clear();
  num_rows_ = 0;
  return batch;
}

Result<std::unique_ptr<TextRows>> MakeTextRows(
    const InputFile& file, std::shared_ptr<arrow::Schema> schema
) {
  std::vector<TextColumn> columns;
  for (const auto& field : schema->fields()) {
    MS_ASSIGN_OR_RETURN(TextColumn column, TextColumn::Make(field));
    columns.push_back(std::move(column));
  }
  switch (file.format) {
    case FileFormat::kCsv:
    case FileFormat::kTsv: {
      const char delimiter = file.format == FileFormat::kCsv ? ',' : '\t';
      return std::make_unique<CellRows>(
          std::move(schema), std::move(columns), file.header, delimiter
      );
    }
    case FileFormat::kText:
      return std::make_unique<CellRows>(
          std::move(schema), std::move(columns), std::vector<std::string>{kTextColumn}, std::nullopt
      );
    default:
      return std::make_unique<JsonRows>(std::move(schema), std::move(columns));
  }
}

}  // namespace millstream
