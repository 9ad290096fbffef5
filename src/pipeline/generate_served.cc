// SPDX-License-Identifier: Apache-2.0
// Rows to requests of a model that servers run: messages and settings as they take them.
#include <utility>

#include "fmt/format.h"
#include "pipeline/expression_columns.h"
#include "pipeline/generate.h"
#include "pipeline/request_key.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Json GenerateStep::ServedBody(const RowSettings& settings) const {
  Json body = {{"model", model_.served->name}};
  body.update(sampling_.Given(settings));
  if (!spec_.stop.empty()) body["stop"] = spec_.stop;
  if (!spec_.stop_token_ids.empty()) body["stop_token_ids"] = spec_.stop_token_ids;
  if (spec_.include_stop_str_in_output) body["include_stop_str_in_output"] = true;
  if (spec_.ignore_eos) body["ignore_eos"] = true;
  if (spec_.add_special_tokens) body["add_special_tokens"] = *spec_.add_special_tokens;
  if (!spec_.chat_template_kwargs.empty()) {
    body["chat_template_kwargs"] = spec_.chat_template_kwargs;
  }
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
  if (spec_.continue_final_message) {
    return Status::Invalid("continue_final_message: is not served over HTTP in this version");
  }
  if (!spec_.overflow_error) {
    return Status::Invalid(
        "on_overflow: a server does not say where its tokens begin, so that nothing can be cut to "
        "fit; use `on_overflow: error`"
    );
  }
  Json body = ServedBody({});
  if (choices_) body["structured_outputs"] = {{"choice", {"a"}}};  // as rows do
  return ToServer(body);
}

Status GenerateStep::ToServer(Json& body) const {
  MS_RETURN_NOT_OK(TranslateBody(
      model_.served->dialect, spec_.raw_prompt ? Endpoint::kCompletions : Endpoint::kChat, body
  ));
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

Result<std::vector<PreparedRow>> GenerateStep::PrepareServed(
    const RowBatch& slice,
    std::int64_t begin,
    const std::vector<RowSettings>& settings,
    std::vector<std::optional<RowError>> errors
) const {
  const Endpoint endpoint = raw_prompt_ ? Endpoint::kCompletions : Endpoint::kChat;
  std::vector<Json> prompts;
  if (raw_prompt_) {
    MS_ASSIGN_OR_RETURN(const std::vector<std::string> texts, RenderRaw(slice, &errors));
    for (const std::string& text : texts) prompts.emplace_back(Unmark(text));
  } else {
    MS_ASSIGN_OR_RETURN(prompts, Conversations(slice, &errors));
    for (Json& conversation : prompts) {
      for (Json& message : conversation) {
        for (Json& text : message) text = Unmark(text.get_ref<const std::string&>());
      }
    }
  }
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
    out.prompt = raw_prompt_ ? prompts[row].get<std::string>() : Dump(prompts[row]);
    Json body = ServedBody(settings[row]);
    if (choices_) out.error = AddRowChoices(choices, row, body, out);
    if (out.error) continue;
    body[raw_prompt_ ? "prompt" : "messages"] = std::move(prompts[row]);
    const bool is_drawn = !body.contains("temperature") || body["temperature"] != 0.0;
    Request request;
    request.http_path = EndpointPath(endpoint);
    for (std::int64_t sample = 0; sample < spec_.n; ++sample) {
      const RowId id = slice.rows[row].id;
      constexpr std::uint64_t kSeedMask = 0x7fffffff;  // what all servers take
      const RandomKey key = SampleKey(settings[row].seed, id, id_, sample);
      Json asked = body;
      if (is_drawn) asked["seed"] = key.low & kSeedMask;
      MS_RETURN_NOT_OK(ToServer(asked));
      request.http_body = Dump(asked);
      request.name = fmt::format("{}:{} {} {}", id.file, id.record, id_, sample);
      out.requests.push_back(request);
    }
  }
  return prepared;
}

}  // namespace millstream
