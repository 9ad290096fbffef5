// SPDX-License-Identifier: Apache-2.0
// Completions to columns.
#include <utility>

#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_nested.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/builder.h"
#include "data/json_value.h"
#include "pipeline/generate.h"
#include "pipeline/operators.h"
#include "pipeline/reasoning.h"

namespace millstream {
namespace {

constexpr char kRunaway[] = "the answer ran away: it went on in white space or repeated itself";

// Appends each sample of a row: to the builder itself, or to the list it builds.
template <typename Append>
Status AppendSamples(
    arrow::ArrayBuilder& builder, const AnsweredRow& row, bool is_list, Append append
) {
  if (!is_list) return append(builder, row.samples.front());
  auto& list = static_cast<arrow::ListBuilder&>(builder);
  MS_RETURN_NOT_OK(list.Append());
  for (const Completion& sample : row.samples) {
    MS_RETURN_NOT_OK(append(*list.value_builder(), sample));
  }
  return Status::OK();
}

Status AppendMeta(arrow::ArrayBuilder& builder, const Completion& sample, bool truncated) {
  auto& meta = static_cast<arrow::StructBuilder&>(builder);
  MS_RETURN_NOT_OK(meta.Append());
  MS_RETURN_NOT_OK(
      static_cast<arrow::Int64Builder&>(*meta.field_builder(0)).Append(sample.prompt_tokens)
  );
  MS_RETURN_NOT_OK(
      static_cast<arrow::Int64Builder&>(*meta.field_builder(1)).Append(sample.completion_tokens)
  );
  MS_RETURN_NOT_OK(static_cast<arrow::StringBuilder&>(*meta.field_builder(2))
                       .Append(FinishReasonName(sample.reason)));
  return static_cast<arrow::BooleanBuilder&>(*meta.field_builder(3)).Append(truncated);
}

}  // namespace

// A server may tell reasoning from the answer unasked: only the answer is constrained.
SplitText GenerateStep::Parts(const AnsweredRow& answer, const Completion& sample) const {
  const bool has_parts = spec_.split_reasoning || (model_.served && spec_.structured);
  return has_parts ? SplitReasoning(answer.prompt, sample.text) : SplitText{{}, sample.text};
}

std::optional<RowError> GenerateStep::JudgeConstrained(
    const AnsweredRow& answer, const Completion& sample
) const {
  const auto invalid = [&](std::string message) {
    return RowError{id_, "invalid_output", std::move(message)};
  };
  if (sample.reason == FinishReason::kLength) {
    return invalid("the answer reached max_tokens before it was complete");
  }
  if (sample.reason == FinishReason::kRunaway) {
    return invalid(std::string(kRunaway) + ", before it was complete");
  }
  if (!model_.served && spec_.split_reasoning && !AnswerHasBegun(answer.prompt, sample.text)) {
    return invalid("the model ended before </think>, where the constraint begins");
  }
  const std::string_view text = Parts(answer, sample).answer;
  const AnswerCheck* const check = answer.check ? answer.check.get() : check_.get();
  if (check != nullptr) {
    if (const Status fits = check->Check(text); !fits.ok()) {
      return invalid("the server's answer is not what structured_outputs asks: " + fits.message());
    }
  }
  const bool has_columns =
      answer_is_json_ && !(answer_type_->id() == arrow::Type::STRING && !note_.empty());
  if (!has_columns) return std::nullopt;
  auto builder = arrow::MakeBuilder(answer_type_);
  if (!builder.ok()) return std::nullopt;
  if (const Status fits = AppendJson(text, **builder); !fits.ok()) {
    return invalid("the answer does not fit the schema: " + fits.message());
  }
  return std::nullopt;
}

std::optional<RowError> GenerateStep::Judge(const AnsweredRow& answer) const {
  for (const Completion& sample : answer.samples) {
    if (sample.reason == FinishReason::kError) {
      return RowError{id_, sample.error_code, sample.error_message};
    }
    if (spec_.structured) {
      if (auto error = JudgeConstrained(answer, sample)) return error;
    } else if (sample.reason == FinishReason::kLength && spec_.length_error) {
      return RowError{id_, "max_tokens_reached", "the answer reached max_tokens"};
    } else if (sample.reason == FinishReason::kRunaway && spec_.length_error) {
      return RowError{id_, "runaway", kRunaway};
    }
  }
  return std::nullopt;
}

Status GenerateStep::Collect(RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out)
    const {
  if (spec_.request_column) return CollectRequests(std::move(batch), answers, out);
  if (spec_.is_score) return CollectScores(std::move(batch), answers, out);
  std::vector<FailedRow> failed;
  std::vector<std::unique_ptr<arrow::ArrayBuilder>> builders;
  for (const auto& field : fields_) {
    MS_ASSIGN_OR_RETURN(builders.emplace_back(), arrow::MakeBuilder(field->type()));
  }
  const bool is_list = spec_.n > 1;
  const bool as_text =
      !answer_is_json_ || (answer_type_->id() == arrow::Type::STRING && !note_.empty());
  for (std::size_t row = 0; row < answers.size(); ++row) {
    const AnsweredRow& answer = answers[row];
    if (std::optional<RowError> error = Judge(answer)) {
      failed.push_back({static_cast<std::int64_t>(row), *std::move(error)});
      for (auto& builder : builders) MS_RETURN_NOT_OK(builder->AppendNull());
      continue;
    }
    std::size_t next = 0;
    const auto append_text = [&](bool reasoning) {
      return [this, &answer, reasoning, as_text](
                 arrow::ArrayBuilder& builder, const Completion& sample
             ) -> Status {
        const SplitText parts = Parts(answer, sample);
        if (reasoning) return static_cast<arrow::StringBuilder&>(builder).Append(parts.reasoning);
        if (as_text) return static_cast<arrow::StringBuilder&>(builder).Append(parts.answer);
        return AppendJson(parts.answer, builder);
      };
    };
    MS_RETURN_NOT_OK(AppendSamples(*builders[next++], answer, is_list, append_text(false)));
    if (spec_.split_reasoning) {
      MS_RETURN_NOT_OK(AppendSamples(*builders[next++], answer, is_list, append_text(true)));
    }
    MS_RETURN_NOT_OK(AppendSamples(
        *builders[next++],
        answer,
        is_list,
        [&](arrow::ArrayBuilder& builder, const Completion& sample) {
          return AppendMeta(builder, sample, answer.truncated);
        }
    ));
    if (spec_.keep_prompt) {
      MS_RETURN_NOT_OK(static_cast<arrow::StringBuilder&>(*builders[next]).Append(answer.prompt));
    }
  }
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> column, builders[i]->Finish());
    batch.columns = WithColumn(batch.columns, fields_[i], std::move(column));
  }
  MS_ASSIGN_OR_RETURN(RowBatch good, PartRows(std::move(batch), std::move(failed), out));
  return out.Emit(std::move(good));
}

}  // namespace millstream
