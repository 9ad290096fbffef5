// SPDX-License-Identifier: Apache-2.0
// OpenAI's batch output: one line a row, from the columns `custom_id` and `response` and the row's
// account. docs/openai-batch.md shows the lines.
//
// A line's id says which row it is: "batch_req_JOB-FILE-RECORD-VERSION", of the job's first digits
// and of _source, then "-CODE-STEP" if the row failed. With that a line holds all that a row has,
// and is read back.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "arrow/array.h"
#include "arrow/array/builder_binary.h"
#include "arrow/type.h"
#include "data/input.h"
#include "data/json_value.h"
#include "data/written_text.h"
#include "fmt/format.h"

namespace millstream {
namespace {

constexpr std::string_view kIdPrefix = "batch_req_";
constexpr std::string_view kRequestPrefix = "req_";
constexpr std::size_t kJobDigits = 12;
constexpr std::array<std::string_view, 4> kMembers{"id", "custom_id", "response", "error"};

// How a row's error code is told over HTTP, where the row has no HTTP answer of its own. A code
// that is not here has no HTTP answer: the request came to nothing.
struct HttpError {
  std::string_view code;
  int status;
  std::string_view told;  // OpenAI's word for it
};
constexpr std::array<HttpError, 10> kHttpErrors{{
    {"bad_messages", 400, "bad_messages"},
    {"bad_parameter", 400, "bad_parameter"},
    {"bad_request", 400, "bad_request"},
    {"chat_template_error", 400, "chat_template_error"},
    {"content_filter", 400, "content_filter"},
    {"context_overflow", 400, "context_length_exceeded"},
    {"empty_prompt", 400, "empty_prompt"},
    {"invalid_request", 400, "invalid_request"},
    {"model_not_found", 404, "model_not_found"},
    {"prompt_too_long", 400, "context_length_exceeded"},
}};

const HttpError* FindHttpError(std::string_view code) {
  const auto found =
      std::find_if(kHttpErrors.begin(), kHttpErrors.end(), [&](const HttpError& error) {
        return error.code == code;
      });
  return found == kHttpErrors.end() ? nullptr : &*found;
}

std::string Quoted(std::string_view text) {
  std::string quoted;
  WriteJsonString(text, quoted);
  return quoted;
}

std::string_view TextAt(const arrow::Array& array, std::int64_t row) {
  return static_cast<const arrow::StringArray&>(array).GetView(row);
}

Status CheckColumns(const arrow::Schema& schema) {
  constexpr std::array<std::string_view, 5> kColumns{
      "custom_id", "response", "_status", "_error", "_source"
  };
  const bool fits = std::equal(
      kColumns.begin(),
      kColumns.end(),
      schema.fields().begin(),
      schema.fields().end(),
      [](std::string_view name, const auto& field) { return field->name() == name; }
  );
  if (fits && schema.field(0)->type()->id() == arrow::Type::STRING &&
      schema.field(3)->type()->num_fields() == 4 && HasJson(*schema.field(1)->type())) {
    return Status::OK();
  }
  return Status::Invalid(
      "format openai-batch holds the columns custom_id, a string, and response, as JSON"
  );
}

class OpenAiBatchWriter final : public TableWriter {
 public:
  OpenAiBatchWriter(
      const arrow::Schema& schema, SinkPtr sink, std::string job, std::vector<std::string> inputs
  )
      : sink_(std::move(sink)),
        job_(std::move(job)),
        inputs_(std::move(inputs)),
        is_json_text_(IsJsonText(*schema.field(1))) {}

  Status Write(const arrow::RecordBatch& batch) override {
    for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
      std::string& out = sink_.text();
      const bool is_ok = TextAt(*batch.column(2), row) == "ok";
      const std::string id = IdOf(batch, row, is_ok);
      out += fmt::format("{{\"id\":{},\"custom_id\":", Quoted(std::string(kIdPrefix) + id));
      MS_RETURN_NOT_OK(WriteJson(*batch.column(0), row, out));
      out += ",\"response\":";
      if (is_ok) {
        AppendResponse(id, "200", out);
        MS_RETURN_NOT_OK(AppendBody(*batch.column(1), row, out));
        out += "},\"error\":null}\n";
      } else {
        AppendFailure(static_cast<const arrow::StructArray&>(*batch.column(3)), row, id, out);
      }
      MS_RETURN_NOT_OK(sink_.RowDone());
    }
    return Status::OK();
  }
  Status Close() override { return sink_.Flush(); }

 private:
  std::string IdOf(const arrow::RecordBatch& batch, std::int64_t row, bool is_ok) const {
    const auto& source = static_cast<const arrow::StructArray&>(*batch.column(4));
    const auto file = std::find(inputs_.begin(), inputs_.end(), TextAt(*source.field(0), row));
    std::string id = fmt::format(
        "{}-{}-{}-{}",
        job_,
        file - inputs_.begin(),
        static_cast<const arrow::Int64Array&>(*source.field(1)).Value(row),
        static_cast<const arrow::Int32Array&>(*source.field(2)).Value(row)
    );
    if (is_ok) return id;
    const auto& error = static_cast<const arrow::StructArray&>(*batch.column(3));
    return fmt::format("{}-{}-{}", id, TextAt(*error.field(1), row), TextAt(*error.field(0), row));
  }

  static void AppendResponse(const std::string& id, std::string_view status, std::string& out) {
    out += fmt::format(
        "{{\"status_code\":{},\"request_id\":{},\"body\":",
        status,
        Quoted(std::string(kRequestPrefix) + id)
    );
  }

  Status AppendBody(const arrow::Array& column, std::int64_t row, std::string& out) const {
    if (!is_json_text_ || column.IsNull(row)) return WriteJson(column, row, out);
    WriteCanonicalJson(TextAt(column, row), out);
    return Status::OK();
  }

  static void AppendFailure(
      const arrow::StructArray& error, std::int64_t row, const std::string& id, std::string& out
  ) {
    const std::string_view code = TextAt(*error.field(1), row);
    const std::string message = Quoted(TextAt(*error.field(2), row));
    std::string_view answer;
    if (error.field(3)->IsValid(row)) answer = TextAt(*error.field(3), row);
    if (const std::size_t space = answer.find(' '); space != answer.npos) {
      AppendResponse(id, answer.substr(0, space), out);
      out += "{\"error\":";
      WriteCanonicalJson(answer.substr(space + 1), out);
    } else if (const HttpError* const http = FindHttpError(code)) {
      AppendResponse(id, fmt::format("{}", http->status), out);
      out += fmt::format(
          "{{\"error\":{{\"message\":{},\"type\":\"invalid_request_error\",\"param\":null,"
          "\"code\":\"{}\"}}",
          message,
          http->told
      );
    } else {
      out +=
          fmt::format("null,\"error\":{{\"code\":{},\"message\":{}}}}}\n", Quoted(code), message);
      return;
    }
    out += "}},\"error\":null}\n";
  }

  TextSink sink_;
  const std::string job_;
  const std::vector<std::string> inputs_;
  const bool is_json_text_;
};

// What an id says.
struct LineId {
  std::size_t file = 0;
  std::int64_t record = 0;
  std::int32_t version = 0;
  std::string_view code, step;  // of a failed row
};

// A number up to a '-' or the end, both taken from `text`.
template <typename Number>
bool TakeNumber(std::string_view& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.empty()) return true;
  if (text.front() != '-') return false;
  text.remove_prefix(1);
  return true;
}

// `start` is what all ids of the job begin with.
std::optional<LineId> ParseId(std::string_view text, std::string_view start) {
  if (!text.starts_with(start)) return std::nullopt;
  text.remove_prefix(start.size());
  LineId id;
  if (!TakeNumber(text, id.file) || !TakeNumber(text, id.record) || !TakeNumber(text, id.version)) {
    return std::nullopt;
  }
  if (text.empty()) return id;
  const std::size_t end = text.find('-');
  if (end == text.npos) return std::nullopt;
  id.code = text.substr(0, end);
  id.step = text.substr(end + 1);
  return id;
}

std::optional<JsonNode> Member(const std::optional<JsonNode>& object, std::string_view name) {
  std::optional<JsonNode> found;
  if (!object || object->kind() != JsonKind::kObject) return found;
  (void)object->ForEachMember([&](std::string_view key, const JsonNode& value) {
    if (key == name) found = value;
    return Status::OK();
  });
  return found;
}

bool IsNull(const std::optional<JsonNode>& node) {
  return node && node->kind() == JsonKind::kNull;
}

class LineParser {
 public:
  LineParser(SchemaPtr schema, std::vector<std::string> inputs, const std::string& job)
      : schema_(std::move(schema)),
        inputs_(std::move(inputs)),
        id_start_(fmt::format("{}{}-", kIdPrefix, job.substr(0, kJobDigits))) {}

  Result<std::optional<std::size_t>> Parse(std::string_view text, RowBuilders& builders) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return std::nullopt;
    MS_RETURN_NOT_OK(document_.Parse(text.substr(0, end), JsonDocument::Utf8::kTrust));
    MS_RETURN_NOT_OK(ReadMembers());
    const std::optional<LineId> id = members_[0]->kind() == JsonKind::kString
                                         ? ParseId(members_[0]->text(), id_start_)
                                         : std::nullopt;
    if (!id || id->file >= inputs_.size()) return Wrong("its id is none of this job");
    MS_RETURN_NOT_OK(Append(0, *members_[1], *builders[0]));
    MS_RETURN_NOT_OK(id->code.empty() ? AppendAnswer(builders) : AppendFailure(*id, builders));
    std::string source = "{\"file\":";
    WriteJsonString(inputs_[id->file], source);
    source += fmt::format(",\"record\":{},\"version\":{}}}", id->record, id->version);
    MS_RETURN_NOT_OK(AppendJson(source, *builders[4]));
    return end + 1;
  }

 private:
  static Status Wrong(std::string_view why) {
    return Status::Invalid("is no batch line: ", std::string(why));
  }

  Status ReadMembers() {
    members_.fill(std::nullopt);
    if (document_.root().kind() != JsonKind::kObject) return Wrong("it is no object");
    std::size_t i = 0;
    MS_RETURN_NOT_OK(document_.root().ForEachMember([&](std::string_view key,
                                                        const JsonNode& value) {
      if (i == kMembers.size() || kMembers[i] != key) return Wrong("unexpected member");
      members_[i++] = value;
      return Status::OK();
    }));
    return i == kMembers.size() ? Status::OK() : Wrong("a member is missing");
  }

  Status Append(int column, const JsonNode& value, arrow::ArrayBuilder& builder) const {
    const arrow::Field& field = *schema_->field(column);
    if (!IsJsonText(field)) return AppendJson(value, *field.type(), builder);
    if (value.kind() == JsonKind::kNull) return builder.AppendNull();
    std::string text;
    WriteJson(value, text);
    return static_cast<arrow::StringBuilder&>(builder).Append(text);
  }

  Status AppendAnswer(RowBuilders& builders) const {
    const std::optional<JsonNode> body = Member(members_[2], "body");
    if (!body || !IsNull(members_[3])) return Wrong("it has no answer");
    MS_RETURN_NOT_OK(Append(1, *body, *builders[1]));
    MS_RETURN_NOT_OK(static_cast<arrow::StringBuilder&>(*builders[2]).Append("ok"));
    return builders[3]->AppendNull();
  }

  Status AppendFailure(const LineId& id, RowBuilders& builders) const {
    MS_RETURN_NOT_OK(builders[1]->AppendNull());
    MS_RETURN_NOT_OK(static_cast<arrow::StringBuilder&>(*builders[2]).Append("error"));
    const std::optional<JsonNode> status = Member(members_[2], "status_code");
    const std::optional<JsonNode> told =
        status ? Member(Member(members_[2], "body"), "error") : members_[3];
    if (!told || told->kind() != JsonKind::kObject) return Wrong("it has neither answer nor error");
    std::string error = "{\"step\":";
    WriteJsonString(id.step, error);
    error += ",\"code\":";
    WriteJsonString(id.code, error);
    error += ",\"message\":";
    const std::optional<JsonNode> message = Member(told, "message");
    const bool has_words = message && message->kind() == JsonKind::kString;
    WriteJsonString(has_words ? message->text() : std::string_view(), error);
    if (status) {
      std::string answer(status->text());
      answer += ' ';
      WriteJson(*told, answer);
      error += ",\"answer\":";
      WriteJsonString(answer, error);
    }
    error += '}';
    return AppendJson(error, *builders[3]);
  }

  const SchemaPtr schema_;
  const std::vector<std::string> inputs_;
  const std::string id_start_;
  JsonDocument document_;
  std::array<std::optional<JsonNode>, kMembers.size()> members_;
};

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeOpenAiBatchWriter(
    const SchemaPtr& schema,
    SinkPtr sink,
    const FileMetadata& metadata,
    const std::vector<std::string>& inputs
) {
  MS_RETURN_NOT_OK(CheckColumns(*schema));
  const auto job = metadata.find("millstream.job");
  return std::make_unique<OpenAiBatchWriter>(
      *schema,
      std::move(sink),
      job == metadata.end() ? "" : job->second.substr(0, kJobDigits),
      inputs
  );
}

Result<BatchReaderPtr> OpenWrittenOpenAiBatch(
    SourcePtr file,
    const std::string& name,
    SchemaPtr schema,
    const std::vector<std::string>& inputs,
    const std::string& job
) {
  MS_RETURN_NOT_OK(CheckColumns(*schema));
  const auto parser = std::make_shared<LineParser>(schema, inputs, job);
  return ReadWrittenText(
      std::move(file),
      name,
      std::move(schema),
      "",
      [parser](std::string_view text, RowBuilders& builders) {
        return parser->Parse(text, builders);
      }
  );
}

}  // namespace millstream
