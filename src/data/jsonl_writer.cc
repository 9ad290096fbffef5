// SPDX-License-Identifier: Apache-2.0
// JSONL files: one object a row, every column in the order of the schema, nulls too.
#include <utility>

#include "arrow/array.h"
#include "arrow/array/builder_binary.h"
#include "arrow/type.h"
#include "data/input.h"
#include "data/json_value.h"
#include "data/written_text.h"

namespace millstream {
namespace {

class JsonlWriter final : public TableWriter {
 public:
  JsonlWriter(const arrow::Schema& schema, SinkPtr sink) : sink_(std::move(sink)) {
    for (const auto& field : schema.fields()) {
      std::string key = columns_.empty() ? "" : ",";
      WriteJsonString(field->name(), key);
      columns_.push_back({key + ':', IsJsonText(*field)});
    }
  }

  Status Write(const arrow::RecordBatch& batch) override {
    const arrow::ArrayVector& arrays = batch.columns();
    for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
      std::string& out = sink_.text();
      out += '{';
      for (std::size_t i = 0; i < columns_.size(); ++i) {
        out += columns_[i].key;
        if (columns_[i].is_json_text && arrays[i]->IsValid(row)) {
          WriteCanonicalJson(static_cast<const arrow::StringArray&>(*arrays[i]).GetView(row), out);
        } else {
          MS_RETURN_NOT_OK(WriteJson(*arrays[i], row, out));
        }
      }
      out += "}\n";
      MS_RETURN_NOT_OK(sink_.RowDone());
    }
    return Status::OK();
  }
  Status Close() override { return sink_.Flush(); }

 private:
  struct Column {
    std::string key;  // as JSON, with what stands around it
    bool is_json_text;
  };

  TextSink sink_;
  std::vector<Column> columns_;
};

Status AppendMember(
    const JsonNode& value, const arrow::Field& field, arrow::ArrayBuilder& builder
) {
  if (!IsJsonText(field)) return AppendJson(value, *field.type(), builder);
  if (value.kind() == JsonKind::kNull) return builder.AppendNull();
  std::string text;
  WriteJson(value, text);
  return static_cast<arrow::StringBuilder&>(builder).Append(text);
}

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeJsonlWriter(const SchemaPtr& schema, SinkPtr sink) {
  return std::make_unique<JsonlWriter>(*schema, std::move(sink));
}

Result<BatchReaderPtr> OpenWrittenJsonl(SourcePtr file, const std::string& name, SchemaPtr schema) {
  const auto document = std::make_shared<JsonDocument>();
  ParseRow parse = [schema, document](
                       std::string_view text, RowBuilders& builders
                   ) -> Result<std::optional<std::size_t>> {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return std::nullopt;
    MS_RETURN_NOT_OK(document->ParseRow(text.substr(0, end), JsonDocument::Utf8::kTrust));
    std::size_t i = 0;
    MS_RETURN_NOT_OK(document->root().ForEachMember([&](std::string_view key,
                                                        const JsonNode& value) {
      if (i == builders.size() || schema->field(static_cast<int>(i))->name() != key) {
        return Status::Invalid("unexpected member ", std::string(key));
      }
      const arrow::Field& field = *schema->field(static_cast<int>(i));
      const Status status = AppendMember(value, field, *builders[i++]);
      return status.ok() ? status : Status::Invalid("column ", field.name(), " ", status.message());
    }));
    if (document->root().kind() != JsonKind::kObject || i != builders.size()) {
      return Status::Invalid("is not an object with the columns of the job");
    }
    return end + 1;
  };
  return ReadWrittenText(std::move(file), name, std::move(schema), "", std::move(parse));
}

}  // namespace millstream
