// SPDX-License-Identifier: Apache-2.0
// Rows to requests of a model that servers run: messages and settings as they take them.
#include <utility>

#include "base/compact_json.h"
#include "fmt/format.h"
#include "pipeline/expression_columns.h"
#include "pipeline/generate.h"
#include "pipeline/request_key.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// What of a body that a row holds its prompt is made of; null if a token counter could not take it.
Json PromptOfRequest(const Json& body, bool is_chat) {
  const auto member = [&](const char* key) {
    const auto found = body.is_object() ? body.find(key) : body.end();
    return found == body.end() ? Json() : *found;
  };
  const char* const key = is_chat ? "messages" : "prompt";
  Json prompt = {{key, member(key)}};
  if (!(is_chat ? prompt[key].is_array() : prompt[key].is_string())) return {};
  if (Json given = member("add_special_tokens"); given.is_boolean()) {
    prompt["add_special_tokens"] = std::move(given);
  }
  if (member("continue_final_message") == true) prompt["continue_final_message"] = true;
  if (Json given = member("chat_template_kwargs"); given.is_object()) {
    prompt["chat_template_kwargs"] = std::move(given);
  }
  return prompt;
}

}  // namespace

void GenerateStep::AddPromptSettings(Json& body) const {
  if (spec_.add_special_tokens) body["add_special_tokens"] = *spec_.add_special_tokens;
  if (spec_.continue_final_message) body["continue_final_message"] = true;
  if (!spec_.chat_template_kwargs.empty()) {
    body["chat_template_kwargs"] = spec_.chat_template_kwargs;
  }
}

Json GenerateStep::ServedBody(const RowSettings& settings) const {
  Json body = {{"model", model_.served->name}};
  body.update(sampling_.Given(settings));
  if (!spec_.stop.empty()) body["stop"] = spec_.stop;
  if (!spec_.stop_token_ids.empty()) body["stop_token_ids"] = spec_.stop_token_ids;
  if (spec_.include_stop_str_in_output) body["include_stop_str_in_output"] = true;
  if (spec_.ignore_eos) body["ignore_eos"] = true;
  AddPromptSettings(body);
  if (!constraint_.is_null()) body["structured_outputs"] = constraint_;
  return body;
}

std::optional<RowError> GenerateStep::AddRowChoices(
    const Values& choices, std::size_t row, Json& body, PreparedRow& out
) const {
  RowError error;
  Json texts = RowChoices(choices, row, &error);
  if (texts.empty()) return error;
  auto check = AnswerCheck::Make(Grammar::Kind::kChoice, texts.dump());
  if (!check.ok()) {
    return RowError{id_, "bad_parameter", "structured_outputs.choice: " + check.status().message()};
  }
  out.check = *std::move(check);
  body["structured_outputs"] = {{"choice", std::move(texts)}};
  return std::nullopt;
}

Status GenerateStep::CheckServed() const {
  if (spec_.chat_template) {
    return Status::Invalid("chat_template: a server has its own: start it with this one");
  }
  if (spec_.parse_special) {
    return Status::Invalid(
        "parse_special: goes with the native engine: what text becomes a special token is the "
        "server's to say"
    );
  }
  if (spec_.places.contains("runaway")) {
    return Status::Invalid(
        "runaway: goes with the native engine: a server ends answers by settings of its own"
    );
  }
  MS_RETURN_NOT_OK(CheckOverflowServed());
  Json body = ServedBody({});
  if (choices_) body["structured_outputs"] = {{"choice", {"a"}}};  // as rows do
  return ToServer(body);
}

Status GenerateStep::CheckOverflowServed() const {
  const bool has_max_tokens = spec_.numbers.contains("max_tokens");
  if (model_.context > 0 && has_max_tokens) {
    const std::string problem = sampling_.ContextProblem(model_.context);
    if (!problem.empty()) return Status::Invalid(problem);
  }
  if (spec_.overflow_error) return Status::OK();
  if (!CanCount(endpoint())) {
    return Status::Invalid(
        "on_overflow: nobody says how many tokens a prompt has, so that none can be cut to fit: "
        "give the model's `tokenizer` under `models`, or use `on_overflow: error`"
    );
  }
  if (model_.context == 0) {
    return Status::Invalid(
        "on_overflow: the server does not say how long its context is: give it under `models`, "
        "`context: 8192` say"
    );
  }
  if (!has_max_tokens) {
    return Status::Invalid(
        "on_overflow: give `max_tokens`, so that it is known what an answer leaves of the context"
    );
  }
  return Status::OK();
}

Status GenerateStep::ToServer(Json& body) const {
  MS_RETURN_NOT_OK(TranslateBody(model_.served->dialect, endpoint(), body));
  for (const auto& [key, value] : model_.served->extra_body.items()) {
    if (body.contains(key)) {
      return Status::Invalid(
          "model: its extra_body has `", key, "`, which this step sets as well: give it once"
      );
    }
    body[key] = value;
  }
  return Status::OK();
}

Result<std::vector<Json>> GenerateStep::ServedPrompts(
    const RowBatch& slice, std::vector<std::optional<RowError>>* errors
) const {
  std::vector<Json> prompts;
  if (raw_prompt_) {
    MS_ASSIGN_OR_RETURN(const std::vector<std::string> texts, RenderRaw(slice, errors));
    for (const std::string& text : texts) prompts.emplace_back(Unmark(text));
    return prompts;
  }
  MS_ASSIGN_OR_RETURN(prompts, Conversations(slice, errors));
  for (Json& conversation : prompts) {
    for (Json& message : conversation) {
      for (Json& text : message) text = Unmark(text.get_ref<const std::string&>());
    }
  }
  return prompts;
}

bool GenerateStep::CanCount(Endpoint endpoint) const {
  const ServedModel& served = *model_.served;
  return served.count_tokens && (served.counts_every_row || CountsTokens(served.dialect, endpoint));
}

Result<std::optional<std::int64_t>> GenerateStep::CountServed(const Json& prompt) const {
  Json body = {{raw_prompt_ ? "prompt" : "messages", prompt}};
  AddPromptSettings(body);
  return model_.served->count_tokens(body);
}

Result<std::optional<std::int64_t>> GenerateStep::CountPrompt(const PreparedRow& row) const {
  if (!model_.served || row.requests.empty()) return std::nullopt;
  const Request& request = row.requests.front();
  const bool is_chat = request.http_path == EndpointPath(Endpoint::kChat);
  if (!CanCount(is_chat ? Endpoint::kChat : Endpoint::kCompletions)) return std::nullopt;
  if (!spec_.request_column) {
    const Json body = Json::parse(request.http_body);
    return CountServed(body.at(is_chat ? "messages" : "prompt"));
  }
  RowRequest line;
  if (ReadRowRequest(request.http_body, "", "", &line)) return std::nullopt;
  const Json prompt = PromptOfRequest(line.body, is_chat);
  if (prompt.is_null()) return std::nullopt;
  return model_.served->count_tokens(prompt);
}

std::optional<std::int64_t> GenerateStep::max_tokens() const {
  const auto found = spec_.numbers.find("max_tokens");
  if (found == spec_.numbers.end()) return std::nullopt;
  const double* const number = std::get_if<double>(&found->second.value);
  if (number == nullptr) return std::nullopt;
  return static_cast<std::int64_t>(*number);
}

// Counts the prompt's tokens if that is worth it, and cuts the row until it fits.
Status GenerateStep::FitServed(
    const RowBatch& slice,
    std::size_t row,
    const SamplingParams& sampling,
    Json& prompt,
    PreparedRow& out
) const {
  const ServedModel& served = *model_.served;
  if (!CanCount(endpoint()) || (spec_.overflow_error && !served.counts_every_row)) {
    return Status::OK();
  }
  const bool has_max_tokens = spec_.numbers.contains("max_tokens");
  const std::int64_t room = model_.context - (has_max_tokens ? sampling.max_tokens : 1);
  // A token is a byte at least, but for those that a chat template adds.
  constexpr std::int64_t kTemplateTokens = 1024;
  const bool must_fit =
      static_cast<std::int64_t>(CompactJson(prompt).size()) + kTemplateTokens <= room;
  if (must_fit && !served.counts_every_row) return Status::OK();
  MS_ASSIGN_OR_RETURN(const std::optional<std::int64_t> tokens, CountServed(prompt));
  if (!tokens) return Status::OK();  // the server will say what is wrong
  out.prompt_tokens = *tokens;
  if (model_.context == 0 || *tokens <= room) return Status::OK();
  if (spec_.overflow_error) {
    out.error = RowError{
        id_,
        "context_overflow",
        fmt::format(
            "{} prompt tokens and {} of the answer exceed the context of {}",
            *tokens,
            model_.context - room,
            model_.context
        )
    };
    return Status::OK();
  }
  const auto fits = [&](const RowBatch& shorter) -> Result<bool> {
    std::vector<std::optional<RowError>> errors(1);
    MS_ASSIGN_OR_RETURN(std::vector<Json> prompts, ServedPrompts(shorter, &errors));
    if (errors[0]) return false;
    prompt = std::move(prompts[0]);
    MS_ASSIGN_OR_RETURN(const std::optional<std::int64_t> count, CountServed(prompt));
    return count && *count <= room;
  };
  return Shorten(slice, static_cast<std::int64_t>(row), &out, fits);
}

Result<std::vector<PreparedRow>> GenerateStep::PrepareServed(
    const RowBatch& slice,
    std::int64_t begin,
    const std::vector<RowSettings>& settings,
    std::vector<std::optional<RowError>> errors
) const {
  MS_ASSIGN_OR_RETURN(std::vector<Json> prompts, ServedPrompts(slice, &errors));
  Values choices;
  if (choices_) {
    MS_ASSIGN_OR_RETURN(choices, EvaluateOver(*choices_, *slice.columns));
  }
  std::vector<PreparedRow> prepared(slice.rows.size());
  for (std::size_t row = 0; row < prepared.size(); ++row) {
    PreparedRow& out = prepared[row];
    out.row = begin + static_cast<std::int64_t>(row);
    out.error = std::move(errors[row]);
    if (out.error) continue;
    MS_RETURN_NOT_OK(FitServed(slice, row, settings[row].sampling, prompts[row], out));
    if (out.error) continue;
    out.prompt = raw_prompt_ ? prompts[row].get<std::string>() : CompactJson(prompts[row]);
    Json body = ServedBody(settings[row]);
    if (choices_) out.error = AddRowChoices(choices, row, body, out);
    if (out.error) continue;
    body[raw_prompt_ ? "prompt" : "messages"] = std::move(prompts[row]);
    const bool is_drawn = !body.contains("temperature") || body["temperature"] != 0.0;
    Request request;
    request.http_path = EndpointPath(endpoint());
    for (std::int64_t sample = 0; sample < spec_.n; ++sample) {
      const RowId id = slice.rows[row].id;
      constexpr std::uint64_t kSeedMask = 0x7fffffff;  // what all servers take
      const RandomKey key = SampleKey(settings[row].seed, id, id_, sample);
      Json asked = body;
      if (is_drawn) asked["seed"] = key.low & kSeedMask;
      MS_RETURN_NOT_OK(ToServer(asked));
      request.http_body = CompactJson(asked);
      request.name = fmt::format("{}:{} {} {}", id.file, id.record, id_, sample);
      out.requests.push_back(request);
    }
  }
  return prepared;
}

}  // namespace millstream
