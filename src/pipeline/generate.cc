// SPDX-License-Identifier: Apache-2.0
// Rows to requests. Completions to columns: generate_answer.cc.
#include "pipeline/generate.h"

#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/builder_binary.h"
#include "base/compact_json.h"
#include "base/parse_json.h"
#include "data/input.h"
#include "data/json_value.h"
#include "fmt/format.h"
#include "pipeline/expression_columns.h"
#include "pipeline/messages.h"
#include "pipeline/operators.h"
#include "pipeline/output_type.h"
#include "pipeline/reasoning.h"
#include "pipeline/request_key.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Errors = std::vector<std::optional<RowError>>;

void SetError(Errors* errors, std::size_t row, RowError error) {
  if (!(*errors)[row]) (*errors)[row] = std::move(error);
}

}  // namespace

Result<std::unique_ptr<GenerateStep>> GenerateStep::Bind(
    const std::string& id,
    const GenerateSpec& spec,
    const BoundModel& model,
    std::int64_t job_seed,
    std::int64_t now_unix_seconds
) {
  std::unique_ptr<GenerateStep> step(new GenerateStep());
  step->id_ = id;
  step->spec_ = spec;
  step->model_ = model;
  step->now_ = now_unix_seconds;
  const bool is_served = model.served.has_value();
  MS_ASSIGN_OR_RETURN(
      step->sampling_,
      SamplingSettings::Resolve(
          spec.numbers,
          is_served ? GenerationDefaults() : model.model->checkpoint->defaults,
          job_seed
      )
  );
  if (std::string problem = step->sampling_.ContextProblem(model.context);
      !is_served && !spec.request_column && !spec.is_score && !problem.empty()) {
    return Status::Invalid(problem);
  }
  if (spec.is_score) {
    MS_RETURN_NOT_OK(step->BindScore());
    return step;
  }
  step->expressions_ = step->sampling_.expressions();
  for (std::int64_t token : spec.stop_token_ids) {
    if (!is_served && (token < 0 || token >= model.model->tokenizer->vocabulary_size())) {
      return Status::Invalid(fmt::format("stop_token_ids: the model has no token {}", token));
    }
    step->stop_tokens_.push_back(static_cast<std::int32_t>(token));
  }
  if (spec.request_column) {
    MS_RETURN_NOT_OK(step->BindRequest());
    return step;
  }
  MS_RETURN_NOT_OK(step->CompilePrompt());
  MS_RETURN_NOT_OK(step->CompileConstraint());
  if (is_served) MS_RETURN_NOT_OK(step->CheckServed());

  const auto shaped = [&](std::shared_ptr<arrow::DataType> type) {
    return spec.n > 1 ? arrow::list(std::move(type)) : type;
  };
  const bool json_text = step->answer_is_json_ && step->answer_type_->id() == arrow::Type::STRING &&
                         !step->note_.empty();
  step->fields_.push_back(
      json_text && spec.n == 1 ? JsonTextField(spec.as)
                               : arrow::field(spec.as, shaped(step->answer_type_))
  );
  if (spec.split_reasoning) {
    step->fields_.push_back(arrow::field(spec.as + "_reasoning", shaped(arrow::utf8())));
  }
  step->fields_.push_back(arrow::field(
      spec.as + "_meta",
      shaped(arrow::struct_(
          {arrow::field("prompt_tokens", arrow::int64()),
           arrow::field("completion_tokens", arrow::int64()),
           arrow::field("finish_reason", arrow::utf8()),
           arrow::field("truncated", arrow::boolean())}
      ))
  ));
  if (spec.keep_prompt) step->fields_.push_back(arrow::field(spec.as + "_prompt", arrow::utf8()));
  return step;
}

Result<std::shared_ptr<const Expression>> GenerateStep::Compile(
    const std::string& key, const std::string& source, Expression::Mode mode
) {
  auto compiled = Expression::Compile(source, mode, model_.model->special_tokens);
  if (!compiled.ok()) return compiled.status().WithMessage(key, ": ", compiled.status().message());
  expressions_.emplace_back(key, *compiled);
  return *compiled;
}

Status GenerateStep::CompilePrompt() {
  const auto mode = Expression::Mode::kPrompt;
  if (spec_.raw_prompt) {
    MS_ASSIGN_OR_RETURN(raw_prompt_, Compile("raw_prompt", *spec_.raw_prompt, mode));
    return Status::OK();
  }
  template_ = model_.model->chat_template;
  if (spec_.chat_template && !model_.served) {
    const Checkpoint& checkpoint = *model_.model->checkpoint;
    auto compiled =
        ChatTemplate::Compile(*spec_.chat_template, checkpoint.bos_token, checkpoint.eos_token);
    if (!compiled.ok()) {
      return compiled.status().WithMessage("chat_template: ", compiled.status().message());
    }
    template_ = *std::move(compiled);
  }
  if (!template_ && !model_.served) {
    return Status::Invalid(
        "the model has no chat template: use raw_prompt, or give one with chat_template: FILE"
    );
  }
  const auto add = [&](const std::string& role,
                       const std::vector<std::pair<std::string, std::string>>& contents) -> Status {
    auto& message = messages_.emplace_back();
    MS_ASSIGN_OR_RETURN(message.first, Compile("messages.role", role, mode));
    for (const auto& [key, content] : contents) {
      MS_ASSIGN_OR_RETURN(message.second.emplace_back(), Compile(key, content, mode));
    }
    return Status::OK();
  };
  if (spec_.prompt) {
    if (spec_.system) MS_RETURN_NOT_OK(add("system", {{"system", *spec_.system}}));
    return add("user", {{"prompt", *spec_.prompt}});
  }
  for (const MessageSpec& message : spec_.messages) {
    std::vector<std::pair<std::string, std::string>> contents;
    contents.reserve(message.contents.size());
    for (const std::string& content : message.contents) {
      contents.emplace_back("messages.content", content);
    }
    MS_RETURN_NOT_OK(add(message.role, contents));
  }
  return Status::OK();
}

Status GenerateStep::CompileConstraint() {
  answer_type_ = arrow::utf8();
  if (!spec_.structured) return Status::OK();
  const StructuredSpec& constraint = *spec_.structured;
  const auto compile = [&](Grammar::Kind kind, const std::string& source) -> Status {
    if (model_.served) {  // its server enforces the constraint, or does not
      auto check = AnswerCheck::Make(kind, source);
      if (!check.ok()) {
        return check.status().WithMessage("structured_outputs: ", check.status().message());
      }
      check_ = *std::move(check);
      return Status::OK();
    }
    auto grammar = model_.grammars->Compile(kind, source);
    if (!grammar.ok()) {
      return grammar.status().WithMessage("structured_outputs: ", grammar.status().message());
    }
    grammar_ = *std::move(grammar);
    return Status::OK();
  };
  switch (constraint.kind) {
    case StructuredSpec::Kind::kChoice:
      if (constraint.choice_column) {
        MS_ASSIGN_OR_RETURN(
            choices_,
            Compile(
                "structured_outputs.choice", *constraint.choice_column, Expression::Mode::kValue
            )
        );
        return Status::OK();
      }
      constraint_ = {{"choice", constraint.choices}};
      return compile(Grammar::Kind::kChoice, Json(constraint.choices).dump());
    case StructuredSpec::Kind::kRegex:
      constraint_ = {{"regex", constraint.text}};
      return compile(Grammar::Kind::kRegex, constraint.text);
    case StructuredSpec::Kind::kGrammar:
      constraint_ = {{"grammar", constraint.text}};
      return compile(Grammar::Kind::kLark, constraint.text);
    case StructuredSpec::Kind::kJson:
      break;
  }
  const Json schema = CloseObjects(constraint.schema);
  const OutputType output = TypeOfSchema(schema);
  answer_type_ = output.type;
  answer_is_json_ = true;
  note_ = output.why_text;
  constraint_ = {{"json", schema}};
  return compile(Grammar::Kind::kJsonSchema, schema.dump());
}

std::vector<ResolvedSetting> GenerateStep::Describe() const {
  std::vector<ResolvedSetting> settings;
  if (!spec_.is_score) {
    settings = sampling_.Describe(id_);
    settings.push_back({id_, "n", fmt::format("{}", spec_.n), spec_.n == 1 ? "default" : "job file"}
    );
  }
  if (model_.served) {
    // The server has defaults of its own.
    std::erase_if(settings, [](const ResolvedSetting& setting) {
      return setting.source == "default" && setting.name != "n";
    });
    return settings;
  }
  settings.push_back(
      {id_,
       "context",
       fmt::format("{}", model_.context),
       model_.context == model_.model->context ? "model" : "job file"}
  );
  return settings;
}

Result<std::vector<std::string>> GenerateStep::RenderRaw(const RowBatch& slice, Errors* errors)
    const {
  MS_ASSIGN_OR_RETURN(const Values values, EvaluateOver(*raw_prompt_, *slice.columns));
  std::vector<std::string> texts;
  for (std::size_t row = 0; row < values.kinds.size(); ++row) {
    texts.emplace_back(values.Text(row));
    if (values.kinds[row] == Values::Kind::kError) {
      SetError(
          errors, row, {id_, std::string(values.ErrorCode(row)), std::string(values.Text(row))}
      );
    }
  }
  return texts;
}

Result<std::vector<Json>> GenerateStep::Conversations(const RowBatch& slice, Errors* errors) const {
  const auto count = static_cast<std::size_t>(slice.num_rows());
  std::vector<Json> conversations(count, Json::array());
  if (spec_.messages_column) {
    const auto column = slice.columns->GetColumnByName(*spec_.messages_column);
    for (std::size_t row = 0; row < count; ++row) {
      std::string json;
      const auto at = static_cast<std::int64_t>(row);
      if (column->type_id() == arrow::Type::STRING) {
        json = static_cast<const arrow::StringArray&>(*column).GetString(at);
      } else {
        MS_RETURN_NOT_OK(WriteJson(*column, at, json));
      }
      auto messages =
          MarkedMessages(ParseJson<Json>(json), model_.model->special_tokens, spec_.parse_special);
      if (messages.ok()) {
        conversations[row] = *std::move(messages);
      } else {
        SetError(errors, row, {id_, "bad_messages", messages.status().message()});
      }
    }
  }
  for (const auto& [role, contents] : messages_) {
    MS_ASSIGN_OR_RETURN(const Values roles, EvaluateOver(*role, *slice.columns));
    std::vector<std::string> texts(count);
    const auto judge = [&](const Values& values, std::size_t row) {
      if (values.kinds[row] != Values::Kind::kError) return true;
      SetError(
          errors, row, {id_, std::string(values.ErrorCode(row)), std::string(values.Text(row))}
      );
      return false;
    };
    for (const auto& content : contents) {
      MS_ASSIGN_OR_RETURN(const Values values, EvaluateOver(*content, *slice.columns));
      for (std::size_t row = 0; row < count; ++row) {
        if (judge(values, row)) texts[row] += values.Text(row);
      }
    }
    for (std::size_t row = 0; row < count; ++row) {
      if (!judge(roles, row)) continue;
      const auto plain = [&](std::string_view text) {
        return spec_.parse_special ? Unmark(text) : std::string(text);
      };
      conversations[row].push_back(
          {{"role", RoleText(plain(roles.Text(row)))}, {"content", plain(texts[row])}}
      );
    }
  }
  return conversations;
}

Result<std::vector<std::string>> GenerateStep::RenderChat(const RowBatch& slice, Errors* errors)
    const {
  MS_ASSIGN_OR_RETURN(const std::vector<Json> conversations, Conversations(slice, errors));
  const std::size_t count = conversations.size();
  ChatOptions options;
  options.add_generation_prompt = !spec_.continue_final_message;
  options.continue_final_message = spec_.continue_final_message;
  options.kwargs_json = spec_.chat_template_kwargs.dump();
  options.now_unix_seconds = now_;
  std::vector<std::string> texts(count);
  for (std::size_t row = 0; row < count; ++row) {
    if ((*errors)[row]) continue;
    auto text = template_->Render(CompactJson(conversations[row]), options);
    if (text.ok()) {
      texts[row] = *std::move(text);
    } else {
      SetError(errors, row, {id_, "chat_template_error", text.status().message()});
    }
  }
  return texts;
}

Result<std::vector<std::string>> GenerateStep::Render(const RowBatch& slice, Errors* errors) const {
  if (!raw_prompt_) return RenderChat(slice, errors);
  MS_ASSIGN_OR_RETURN(std::vector<std::string> texts, RenderRaw(slice, errors));
  if (spec_.parse_special) {
    for (std::string& text : texts) text = Unmark(text);
  }
  return texts;
}

Result<std::vector<std::int32_t>> GenerateStep::Encode(const std::string& marked) const {
  // A chat template writes its own BOS; a raw prompt gets the tokenizer's. Never both.
  return model_.model->tokenizer->Encode(
      marked, spec_.add_special_tokens.value_or(raw_prompt_ != nullptr)
  );
}

Json GenerateStep::RowChoices(const Values& choices, std::size_t row, RowError* error) const {
  Json texts = Json::array();
  if (choices.kinds[row] == Values::Kind::kError) {
    *error = {id_, std::string(choices.ErrorCode(row)), std::string(choices.Text(row))};
    return texts;
  }
  const Json list = ParseJson<Json>(choices.Text(row));
  if (choices.kinds[row] == Values::Kind::kJson && list.is_array()) {
    for (const Json& choice : list) {
      texts.push_back(choice.is_string() ? choice : Json(choice.dump()));
    }
  }
  if (texts.empty()) {
    *error = {id_, "bad_parameter", "structured_outputs.choice must give a non-empty list"};
  }
  return texts;
}

Result<std::shared_ptr<const Grammar>> GenerateStep::RowGrammar(
    const Values& choices, std::size_t row, RowError* error
) const {
  const Json texts = RowChoices(choices, row, error);
  if (texts.empty()) return std::shared_ptr<const Grammar>();
  auto grammar = model_.grammars->Compile(Grammar::Kind::kChoice, texts.dump());
  if (grammar.ok()) return grammar;
  *error = {id_, "bad_parameter", "structured_outputs.choice: " + grammar.status().message()};
  return std::shared_ptr<const Grammar>();
}

void GenerateStep::AddSamples(
    Request request, std::int64_t seed, const RowId& row, PreparedRow* out
) const {
  request.sampling.stop = spec_.stop;
  request.sampling.stop_token_ids = stop_tokens_;
  request.sampling.include_stop_str_in_output = spec_.include_stop_str_in_output;
  request.sampling.ignore_eos = spec_.ignore_eos;
  request.sampling.ignore_runaway = spec_.ignore_runaway;
  if (request.grammar && spec_.split_reasoning && !PromptEndsReasoning(out->prompt)) {
    request.grammar_after = kThinkEnd;
  }
  for (std::int64_t sample = 0; sample < spec_.n; ++sample) {
    out->requests.push_back(request);
    out->requests.back().random = SampleKey(seed, row, id_, sample);
    out->requests.back().name = fmt::format("{}:{} {} {}", row.file, row.record, id_, sample);
  }
}

Result<std::vector<PreparedRow>> GenerateStep::Prepare(
    const RowBatch& batch, std::int64_t begin, std::int64_t end
) const {
  RowBatch slice;
  slice.columns = batch.columns->Slice(begin, end - begin);
  slice.rows.assign(batch.rows.begin() + begin, batch.rows.begin() + end);
  Errors errors(slice.rows.size());
  std::vector<FailedRow> failed;
  MS_ASSIGN_OR_RETURN(
      const std::vector<RowSettings> settings, sampling_.ForRows(*slice.columns, id_, &failed)
  );
  for (FailedRow& row : failed) {
    SetError(&errors, static_cast<std::size_t>(row.row), std::move(row.error));
  }
  if (spec_.request_column) return PrepareRequests(slice, begin, settings, std::move(errors));
  if (spec_.is_score) return PrepareScores(slice, begin, settings, std::move(errors));
  if (model_.served) return PrepareServed(slice, begin, settings, std::move(errors));
  Values choices;
  if (choices_) {
    MS_ASSIGN_OR_RETURN(choices, EvaluateOver(*choices_, *slice.columns));
  }
  MS_ASSIGN_OR_RETURN(const std::vector<std::string> texts, Render(slice, &errors));

  std::vector<PreparedRow> prepared(slice.rows.size());
  for (std::size_t row = 0; row < prepared.size(); ++row) {
    PreparedRow& out = prepared[row];
    out.row = begin + static_cast<std::int64_t>(row);
    std::shared_ptr<const Grammar> grammar = grammar_;
    if (choices_ && !errors[row]) {
      RowError error;
      MS_ASSIGN_OR_RETURN(grammar, RowGrammar(choices, row, &error));
      if (!grammar) errors[row] = std::move(error);
    }
    out.error = std::move(errors[row]);
    if (out.error) continue;
    out.prompt = texts[row];
    MS_ASSIGN_OR_RETURN(std::vector<std::int32_t> tokens, Encode(texts[row]));
    out.prompt_tokens = static_cast<std::int64_t>(tokens.size());
    const std::int64_t room = model_.context - settings[row].sampling.max_tokens;
    if (out.prompt_tokens > room) {
      if (spec_.overflow_error) {
        out.error = RowError{
            id_,
            "context_overflow",
            fmt::format(
                "{} prompt tokens and max_tokens {} exceed the context of {}",
                tokens.size(),
                settings[row].sampling.max_tokens,
                model_.context
            )
        };
      } else {
        MS_RETURN_NOT_OK(Truncate(slice, static_cast<std::int64_t>(row), room, &out, &tokens));
      }
    }
    if (!out.error && tokens.empty()) {
      out.error = RowError{id_, "empty_prompt", "the prompt has no tokens"};
    }
    if (out.error) continue;
    out.prompt = Unmark(out.prompt);
    Request request;
    request.prompt_tokens = std::move(tokens);
    request.sampling = settings[row].sampling;
    request.grammar = std::move(grammar);
    AddSamples(std::move(request), settings[row].seed, slice.rows[row].id, &out);
  }
  return prepared;
}

}  // namespace millstream
