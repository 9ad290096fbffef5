// SPDX-License-Identifier: Apache-2.0
// CSV files as RFC 4180 has them, with a header and "\n" line ends. A null is an empty cell, an
// empty string ""; nested values are JSON text.
#include <array>
#include <utility>

#include "arrow/array.h"
#include "arrow/array/builder_binary.h"
#include "arrow/extension_type.h"
#include "arrow/type.h"
#include "data/json_value.h"
#include "data/written_text.h"

namespace millstream {
namespace {

using arrow::Type;

constexpr std::array<bool, 256> kNeedsQuotes = [] {
  std::array<bool, 256> table{};
  for (const char c : {'"', ',', '\n', '\r'}) table[static_cast<unsigned char>(c)] = true;
  return table;
}();

void WriteCell(std::string_view text, std::string& out) {
  bool quotes = text.empty();
  for (const char c : text) quotes = quotes || kNeedsQuotes[static_cast<unsigned char>(c)];
  if (!quotes) {
    out += text;
    return;
  }
  out += '"';
  for (std::size_t quote = text.find('"'); quote != text.npos; quote = text.find('"')) {
    out += text.substr(0, quote + 1);
    out += '"';
    text.remove_prefix(quote + 1);
  }
  out += text;
  out += '"';
}

std::string HeaderLine(const arrow::Schema& schema) {
  std::string line;
  for (const auto& field : schema.fields()) {
    if (!line.empty()) line += ',';
    WriteCell(field->name(), line);
  }
  return line + '\n';
}

class CsvWriter final : public TableWriter {
 public:
  CsvWriter(const arrow::Schema& schema, SinkPtr sink) : sink_(std::move(sink)) {
    sink_.text() = HeaderLine(schema);
  }

  Status Write(const arrow::RecordBatch& batch) override {
    const arrow::ArrayVector& arrays = batch.columns();
    for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
      for (std::size_t i = 0; i < arrays.size(); ++i) {
        if (i != 0) sink_.text() += ',';
        MS_RETURN_NOT_OK(WriteValue(*arrays[i], row));
      }
      sink_.text() += '\n';
      MS_RETURN_NOT_OK(sink_.RowDone());
    }
    return Status::OK();
  }
  Status Close() override { return sink_.Flush(); }

 private:
  Status WriteValue(const arrow::Array& array, std::int64_t row) {
    if (array.IsNull(row)) return Status::OK();
    std::string& out = sink_.text();
    switch (array.type_id()) {
      case Type::NA:
        return Status::OK();
      case Type::STRING:
        return WriteCell(static_cast<const arrow::StringArray&>(array).GetView(row), out),
               Status::OK();
      case Type::LARGE_STRING:
        return WriteCell(static_cast<const arrow::LargeStringArray&>(array).GetView(row), out),
               Status::OK();
      case Type::STRING_VIEW:
        return WriteCell(static_cast<const arrow::StringViewArray&>(array).GetView(row), out),
               Status::OK();
      case Type::DICTIONARY: {
        const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
        return WriteValue(*coded.dictionary(), coded.GetValueIndex(row));
      }
      case Type::EXTENSION:
        return WriteValue(*static_cast<const arrow::ExtensionArray&>(array).storage(), row);
      default:
        break;
    }
    json_.clear();
    MS_RETURN_NOT_OK(WriteJson(array, row, json_));
    std::string_view text = json_;
    // The quotes of a time, of binary, of NaN, none of which has an escape.
    if (text.starts_with('"')) text = text.substr(1, text.size() - 2);
    WriteCell(text, out);
    return Status::OK();
  }

  TextSink sink_;
  std::string json_;
};

struct Cell {
  std::string_view text;
  bool is_quoted = false;
};

// Whether the cell's text is what a JSON string of the type holds, rather than JSON.
bool IsStringInJson(const arrow::DataType& type, std::string_view text) {
  switch (type.id()) {
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::STRING_VIEW:
    case Type::BINARY:
    case Type::LARGE_BINARY:
    case Type::BINARY_VIEW:
    case Type::FIXED_SIZE_BINARY:
    case Type::DATE32:
    case Type::DATE64:
    case Type::TIMESTAMP:
      return true;
    case Type::TIME32:
    case Type::TIME64:
      return text.find(':') != text.npos;
    case Type::HALF_FLOAT:
    case Type::FLOAT:
    case Type::DOUBLE:
      return text.find_first_of("0123456789") == text.npos;
    case Type::DICTIONARY:
      return IsStringInJson(*static_cast<const arrow::DictionaryType&>(type).value_type(), text);
    default:
      return false;
  }
}

// Takes the rows of a file apart.
class CsvRows {
 public:
  explicit CsvRows(SchemaPtr schema) : schema_(std::move(schema)) {}

  Result<std::optional<std::size_t>> Parse(std::string_view text, RowBuilders& builders) {
    std::size_t at = 0;
    cells_.clear();
    unescaped_.clear();
    do {
      if (!ParseCell(text, at)) return std::nullopt;
      if (at == text.size()) return std::nullopt;
    } while (text[at++] == ',');
    if (text[at - 1] != '\n') return Status::Invalid("something stands after a quoted cell");
    if (cells_.size() != std::max<std::size_t>(builders.size(), 1)) {
      return Status::Invalid("has ", cells_.size(), " cells, expected ", builders.size());
    }
    for (std::size_t i = 0; i < builders.size(); ++i) {
      const arrow::Field& field = *schema_->field(static_cast<int>(i));
      const Status status = Append(cells_[i], *field.type(), *builders[i]);
      if (!status.ok()) return Status::Invalid("column ", field.name(), " ", status.message());
    }
    return at;
  }

 private:
  // Moves `at` behind the cell; false if the text ends in it.
  bool ParseCell(std::string_view text, std::size_t& at) {
    if (at == text.size()) return false;
    if (text[at] != '"') {
      const std::size_t end = text.find_first_of(",\n", at);
      if (end == text.npos) return false;
      cells_.push_back({text.substr(at, end - at), false});
      at = end;
      return true;
    }
    const std::size_t begin = ++at;
    std::string* copy = nullptr;  // made at the first doubled quote
    for (std::size_t piece = begin;; piece = at) {
      const std::size_t quote = text.find('"', at);
      if (quote == text.npos || quote + 1 == text.size()) return false;
      at = quote + 1;
      const bool is_doubled = text[at] == '"';
      if (is_doubled && copy == nullptr) {
        copy = unescaped_.emplace_back(std::make_unique<std::string>()).get();
      }
      if (copy != nullptr) copy->append(text.substr(piece, quote - piece + (is_doubled ? 1 : 0)));
      if (is_doubled) {
        ++at;
        continue;
      }
      cells_.push_back(
          {copy != nullptr ? std::string_view(*copy) : text.substr(begin, quote - begin), true}
      );
      return true;
    }
  }

  Status Append(const Cell& cell, const arrow::DataType& type, arrow::ArrayBuilder& builder) {
    if (cell.text.empty() && !cell.is_quoted) return builder.AppendNull();
    if (type.id() == Type::STRING) {
      return static_cast<arrow::StringBuilder&>(builder).Append(cell.text);
    }
    if (type.id() == Type::LARGE_STRING) {
      return static_cast<arrow::LargeStringBuilder&>(builder).Append(cell.text);
    }
    if (type.id() == Type::EXTENSION) return Status::Invalid("has an extension type");
    json_.clear();
    if (IsStringInJson(type, cell.text)) {
      WriteJsonString(cell.text, json_);
    } else {
      json_ = cell.text;
    }
    MS_RETURN_NOT_OK(document_.Parse(json_, JsonDocument::Utf8::kTrust));
    return AppendJson(document_.root(), type, builder);
  }

  const SchemaPtr schema_;
  std::vector<Cell> cells_;
  std::vector<std::unique_ptr<std::string>> unescaped_;
  std::string json_;
  JsonDocument document_;
};

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeCsvWriter(const SchemaPtr& schema, SinkPtr sink) {
  return std::make_unique<CsvWriter>(*schema, std::move(sink));
}

Result<BatchReaderPtr> OpenWrittenCsv(SourcePtr file, const std::string& name, SchemaPtr schema) {
  const auto rows = std::make_shared<CsvRows>(schema);
  std::string header = HeaderLine(*schema);
  return ReadWrittenText(
      std::move(file),
      name,
      std::move(schema),
      std::move(header),
      [rows](std::string_view text, RowBuilders& builders) { return rows->Parse(text, builders); }
  );
}

}  // namespace millstream
