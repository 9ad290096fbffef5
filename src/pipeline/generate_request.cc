// SPDX-License-Identifier: Apache-2.0
// Rows that hold request bodies: to requests, and to the completion objects that answer them.
#include <algorithm>
#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/builder_binary.h"
#include "base/check.h"
#include "base/compact_json.h"
#include "data/input.h"
#include "data/json_document.h"
#include "data/json_value.h"
#include "fmt/format.h"
#include "pipeline/completion_object.h"
#include "pipeline/generate.h"
#include "pipeline/messages.h"
#include "pipeline/operators.h"
#include "pipeline/reasoning.h"
#include "pipeline/request_key.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Problem = std::optional<RequestProblem>;

constexpr std::size_t kIgnoredNamesMax = 20;
constexpr std::int64_t kTextCompletionTokens = 16;  // OpenAI's default of max_tokens there

RequestProblem Wrong(std::string_view key, std::string message) {
  return {400, "invalid_value", std::string(key), std::move(message)};
}

// A text column's value; other columns' as JSON. Empty where it is null or there is no such column.
Result<std::string> ValueAt(
    const arrow::RecordBatch& columns, const std::string& name, std::int64_t row
) {
  std::string text;
  const auto column = columns.GetColumnByName(name);
  if (column == nullptr || column->IsNull(row)) return text;
  if (column->type_id() == arrow::Type::STRING) {
    return static_cast<const arrow::StringArray&>(*column).GetString(row);
  }
  MS_RETURN_NOT_OK(WriteJson(*column, row, text));
  return text;
}

// What a batch line lacks, of the columns that the job has not dropped.
Problem MissingOfLine(
    const arrow::RecordBatch& columns,
    std::int64_t row,
    std::string_view method,
    std::string_view url
) {
  const auto is_there = [&](const char* name) { return columns.GetColumnByName(name) != nullptr; };
  if (is_there("custom_id") && columns.GetColumnByName("custom_id")->IsNull(row)) {
    return Wrong("custom_id", "`custom_id` is missing");
  }
  if (is_there("method") && method.empty()) {
    return RequestProblem{400, "invalid_method", "method", "`method` is missing: it must be POST"};
  }
  if (is_there("url") && url.empty()) {
    return RequestProblem{
        400,
        "invalid_url",
        "url",
        "`url` is missing: it must be /v1/chat/completions or /v1/completions"
    };
  }
  return std::nullopt;
}

// Marks all texts in a value as row text.
void MarkTexts(Json& value, const std::string& special_tokens) {
  if (value.is_string()) {
    value = MarkAll(value.get_ref<const std::string&>(), special_tokens);
  } else if (value.is_structured()) {
    for (Json& item : value) MarkTexts(item, special_tokens);
  }
}

// The body as it came, to its digits and its order of keys, but for the model's name; `extra` keys
// are added where it has none of that name.
std::string BodyForServer(std::string_view text, const std::string& model, const Json& extra) {
  JsonDocument document;
  const Status parsed = document.Parse(text);
  MS_CHECK(parsed.ok());  // as it was before
  std::string out = "{\"model\":";
  WriteJsonString(model, out);
  Json missing = extra;
  (void)document.root().ForEachMember([&](std::string_view key, const JsonNode& value) {
    if (key == "model") return Status::OK();
    missing.erase(key);
    out += ',';
    WriteJsonString(key, out);
    out += ':';
    WriteJson(value, out);
    return Status::OK();
  });
  for (const auto& [key, value] : missing.items()) {
    out += ',';
    WriteJsonString(key, out);
    out += ':' + CompactJson(value);
  }
  return out + '}';
}

}  // namespace

void IgnoredKeys::Add(const std::vector<std::string>& keys) {
  if (keys.empty()) return;
  MutexLock lock(mutex_);
  for (const std::string& key : keys) {
    if (counts_.size() < kIgnoredNamesMax || counts_.contains(key)) {
      ++counts_[key];
    } else {
      has_more_ = true;
    }
  }
}

std::string IgnoredKeys::InWords() const {
  MutexLock lock(mutex_);
  std::string words;
  for (const auto& [key, count] : counts_) {
    words += fmt::format("{}`{}` ({} times)", words.empty() ? "" : ", ", key, count);
  }
  return has_more_ ? words + " and more" : words;
}

std::string GenerateStep::IgnoredInWords() const {
  const std::string keys = ignored_ ? ignored_->InWords() : "";
  return keys.empty() ? keys
                      : fmt::format(
                            "{}: keys of request bodies that are not known here, or change no "
                            "answer, were ignored: "
                            "{}",
                            id_,
                            keys
                        );
}

Status GenerateStep::BindRequest() {
  fields_ = {JsonTextField(spec_.as)};
  answer_type_ = arrow::utf8();
  ignored_ = std::make_unique<IgnoredKeys>();
  template_ = model_.model->chat_template;
  const char* const foreign = spec_.split_reasoning              ? "reasoning"
                              : spec_.parse_special              ? "parse_special"
                              : spec_.places.contains("runaway") ? "runaway"
                                                                 : nullptr;
  if (model_.served && foreign != nullptr) {
    return Status::Invalid(
        foreign, ": does not go with `request` and a server, whose answers are kept as they come"
    );
  }
  return Status::OK();
}

Result<std::vector<PreparedRow>> GenerateStep::PrepareRequests(
    const RowBatch& slice,
    std::int64_t begin,
    const std::vector<RowSettings>& settings,
    std::vector<std::optional<RowError>> errors
) const {
  std::vector<PreparedRow> prepared(slice.rows.size());
  for (std::size_t row = 0; row < prepared.size(); ++row) {
    PreparedRow& out = prepared[row];
    const auto at = static_cast<std::int64_t>(row);
    out.row = begin + at;
    out.error = std::move(errors[row]);
    if (out.error) continue;
    MS_ASSIGN_OR_RETURN(const std::string body, ValueAt(*slice.columns, *spec_.request_column, at));
    MS_ASSIGN_OR_RETURN(const std::string method, ValueAt(*slice.columns, "method", at));
    MS_ASSIGN_OR_RETURN(const std::string url, ValueAt(*slice.columns, "url", at));
    RowRequest line;
    Problem problem;
    if (spec_.request_is_line) problem = MissingOfLine(*slice.columns, at, method, url);
    if (!problem) problem = ReadRowRequest(body, method, url, &line);
    if (!problem) problem = CheckModelName(line.body, model_.names);
    const RowId& id = slice.rows[row].id;
    if (!problem) {
      problem = model_.served ? PrepareHttp(line, body, id, &out)
                              : PrepareNative(line, settings[row], id, &out);
    }
    if (problem) out.error = ErrorOfRequest(id_, *problem);
  }
  return prepared;
}

Problem GenerateStep::PrepareHttp(
    const RowRequest& line, std::string_view text, const RowId& row, PreparedRow* out
) const {
  Request request;
  request.http_path = EndpointPath(line.endpoint);
  request.http_body = BodyForServer(text, model_.served->name, model_.served->extra_body);
  request.http_whole = true;
  request.name = fmt::format("{}:{} {} 0", row.file, row.record, id_);
  out->prompt = request.http_body;
  out->requests.push_back(std::move(request));
  return std::nullopt;
}

Result<std::string> GenerateStep::RenderRequest(const RequestBody& body) const {
  const std::string& special_tokens = model_.model->special_tokens;
  if (body.messages.is_null()) {
    return spec_.parse_special ? body.prompt : MarkAll(body.prompt, special_tokens);
  }
  if (!template_) return Status::Invalid("the model has no chat template: use /v1/completions");
  MS_ASSIGN_OR_RETURN(
      const Json messages, MarkedMessages(body.messages, special_tokens, spec_.parse_special)
  );
  Json kwargs = body.chat_template_kwargs;
  if (!spec_.parse_special) MarkTexts(kwargs, special_tokens);
  ChatOptions options;
  options.add_generation_prompt = body.add_generation_prompt;
  options.continue_final_message = body.continue_final_message;
  options.kwargs_json = CompactJson(kwargs);
  options.now_unix_seconds = now_;
  return template_->Render(CompactJson(messages), options);
}

Problem GenerateStep::PrepareNative(
    const RowRequest& line, const RowSettings& settings, const RowId& row, PreparedRow* out
) const {
  RequestBody body;
  body.settings = settings;
  if (Problem problem = ReadRequestBody(line, &body)) return problem;
  ignored_->Add(body.ignored);
  const bool is_chat = line.endpoint == Endpoint::kChat;
  const std::string_view content = is_chat ? "messages" : "prompt";
  const auto text = RenderRequest(body);
  if (!text.ok()) return Wrong(content, text.status().message());
  auto tokens = model_.model->tokenizer->Encode(*text, body.add_special_tokens.value_or(!is_chat));
  if (!tokens.ok()) return Wrong(content, tokens.status().message());
  if (tokens->empty()) return Wrong(content, "the prompt has no tokens");

  SamplingParams& sampling = body.settings.sampling;
  sampling.ignore_runaway = spec_.ignore_runaway;
  const std::int64_t vocabulary = model_.model->tokenizer->vocabulary_size();
  for (const std::int32_t token : sampling.stop_token_ids) {
    if (token < vocabulary) continue;
    return Wrong("stop_token_ids", fmt::format("the model has no token {}", token));
  }
  const auto num_tokens = static_cast<std::int64_t>(tokens->size());
  const std::int64_t room = model_.context - num_tokens;
  if (!body.has_max_tokens) {
    const auto& wish = model_.model->checkpoint->defaults.max_tokens;
    sampling.max_tokens = std::min(is_chat ? wish.value_or(room) : kTextCompletionTokens, room);
  }
  if (sampling.max_tokens > room || room < 1) {
    out->error = RowError{
        id_,
        "context_overflow",
        fmt::format(
            "the model's context is {} tokens; the prompt has {}, and {} are asked for the answer",
            model_.context,
            num_tokens,
            body.has_max_tokens ? sampling.max_tokens : 1
        )
    };
    return std::nullopt;
  }
  Request request;
  if (body.constraint) {
    auto grammar = model_.grammars->Compile(body.constraint->first, body.constraint->second);
    if (!grammar.ok()) return Wrong("response_format", grammar.status().message());
    request.grammar = *std::move(grammar);
  }
  out->prompt = Unmark(*text);
  out->prompt_tokens = num_tokens;
  request.prompt_tokens = *std::move(tokens);
  request.sampling = std::move(sampling);
  if (request.grammar && spec_.split_reasoning && !PromptEndsReasoning(out->prompt)) {
    request.grammar_after = kThinkEnd;
  }
  for (std::int64_t sample = 0; sample < body.n; ++sample) {
    out->requests.push_back(request);
    out->requests.back().random = SampleKey(body.settings.seed, row, id_, sample);
    out->requests.back().name = fmt::format("{}:{} {} {}", row.file, row.record, id_, sample);
  }
  return std::nullopt;
}

Status GenerateStep::CollectRequests(
    RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out
) const {
  std::vector<FailedRow> failed;
  arrow::StringBuilder builder;
  for (std::size_t row = 0; row < answers.size(); ++row) {
    const AnsweredRow& answer = answers[row];
    const auto at = static_cast<std::int64_t>(row);
    const auto broken =
        std::find_if(answer.samples.begin(), answer.samples.end(), [](const Completion& sample) {
          return sample.reason == FinishReason::kError;
        });
    if (broken != answer.samples.end()) {
      const std::string told = model_.served ? broken->text : "";
      failed.push_back({at, {id_, broken->error_code, broken->error_message, told}});
      MS_RETURN_NOT_OK(builder.AppendNull());
      continue;
    }
    if (model_.served) {
      MS_RETURN_NOT_OK(builder.Append(answer.samples.front().text));
      continue;
    }
    MS_ASSIGN_OR_RETURN(const std::string text, ValueAt(*batch.columns, *spec_.request_column, at));
    MS_ASSIGN_OR_RETURN(const std::string url, ValueAt(*batch.columns, "url", at));
    RowRequest line;
    RequestBody body;
    const bool is_read = !ReadRowRequest(text, "", url, &line) && !ReadRequestBody(line, &body);
    MS_CHECK(is_read);  // as it was when its request was made
    CompletionFrame frame;
    frame.endpoint = line.endpoint;
    // No sample has this number.
    frame.id = SampleKey(now_, batch.rows[row].id, id_, -1);
    frame.created_unix_seconds = now_;
    const auto model = line.body.find("model");
    const bool names_model = model != line.body.end() && model->is_string();
    frame.model = names_model ? model->get<std::string>() : model_.names.front();
    frame.prompt = answer.prompt;
    frame.echo = body.echo;
    frame.split = spec_.split_reasoning;
    MS_RETURN_NOT_OK(builder.Append(CompletionObject(frame, answer.samples)));
  }
  MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> column, builder.Finish());
  batch.columns = WithColumn(batch.columns, fields_.front(), std::move(column));
  MS_ASSIGN_OR_RETURN(RowBatch good, PartRows(std::move(batch), std::move(failed), out));
  return out.Emit(std::move(good));
}

}  // namespace millstream
