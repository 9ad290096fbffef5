// SPDX-License-Identifier: Apache-2.0
// The score step: texts to requests, and the scores of their tokens to columns.
#include <numeric>
#include <utility>

#include "arrow/array/builder_nested.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/builder.h"
#include "fmt/format.h"
#include "pipeline/generate.h"
#include "pipeline/operators.h"

namespace millstream {
namespace {

Status AppendScores(
    const AnsweredRow& answer, std::vector<std::unique_ptr<arrow::ArrayBuilder>>& builders
) {
  const std::vector<float>& scores = answer.samples.front().scores;
  auto& mean = static_cast<arrow::DoubleBuilder&>(*builders[0]);
  if (scores.empty()) {
    MS_RETURN_NOT_OK(mean.AppendNull());
  } else {
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
    MS_RETURN_NOT_OK(mean.Append(sum / static_cast<double>(scores.size())));
  }
  auto& meta = static_cast<arrow::StructBuilder&>(*builders[1]);
  MS_RETURN_NOT_OK(meta.Append());
  MS_RETURN_NOT_OK(
      static_cast<arrow::Int64Builder&>(*meta.field_builder(0)).Append(std::ssize(scores))
  );
  MS_RETURN_NOT_OK(
      static_cast<arrow::BooleanBuilder&>(*meta.field_builder(1)).Append(answer.truncated)
  );
  if (builders.size() == 2) return Status::OK();
  auto& list = static_cast<arrow::ListBuilder&>(*builders[2]);
  MS_RETURN_NOT_OK(list.Append());
  return static_cast<arrow::FloatBuilder&>(*list.value_builder()).AppendValues(scores);
}

}  // namespace

Status GenerateStep::BindScore() {
  if (model_.served) {
    return Status::Invalid(
        "model: servers do not tell how likely a text is: give a model of the native engine, "
        "`models: {name: {path: ...}}`, a small one of the same kind say"
    );
  }
  MS_ASSIGN_OR_RETURN(raw_prompt_, Compile("text", *spec_.raw_prompt, Expression::Mode::kPrompt));
  fields_ = {
      arrow::field(spec_.as, arrow::float64()),
      arrow::field(
          spec_.as + "_meta",
          arrow::struct_(
              {arrow::field("tokens", arrow::int64()), arrow::field("truncated", arrow::boolean())}
          )
      )
  };
  if (spec_.per_token) {
    fields_.push_back(arrow::field(spec_.as + "_logprobs", arrow::list(arrow::float32())));
  }
  return Status::OK();
}

Result<std::vector<PreparedRow>> GenerateStep::PrepareScores(
    const RowBatch& slice,
    std::int64_t begin,
    const std::vector<RowSettings>& settings,
    std::vector<std::optional<RowError>> errors
) const {
  MS_ASSIGN_OR_RETURN(std::vector<std::string> texts, Render(slice, &errors));
  std::vector<PreparedRow> prepared(slice.rows.size());
  for (std::size_t row = 0; row < prepared.size(); ++row) {
    PreparedRow& out = prepared[row];
    const auto at = static_cast<std::int64_t>(row);
    out.row = begin + at;
    out.error = std::move(errors[row]);
    if (out.error) continue;
    out.prompt = std::move(texts[row]);
    MS_ASSIGN_OR_RETURN(std::vector<std::int32_t> tokens, Encode(out.prompt));
    out.prompt_tokens = std::ssize(tokens);
    if (out.prompt_tokens > model_.context && spec_.overflow_error) {
      out.error = RowError{
          id_,
          "context_overflow",
          fmt::format("{} tokens exceed the context of {}", tokens.size(), model_.context)
      };
    } else if (out.prompt_tokens > model_.context) {
      MS_RETURN_NOT_OK(Truncate(slice, at, model_.context, &out, &tokens));
    }
    if (out.error) continue;
    out.prompt = Unmark(out.prompt);
    Request request;
    request.prompt_tokens = std::move(tokens);
    request.score = true;
    AddSamples(std::move(request), settings[row].seed, slice.rows[row].id, &out);
  }
  return prepared;
}

Status GenerateStep::CollectScores(
    RowBatch batch, const std::vector<AnsweredRow>& answers, Emitter& out
) const {
  std::vector<FailedRow> failed;
  std::vector<std::unique_ptr<arrow::ArrayBuilder>> builders;
  for (const auto& field : fields_) {
    MS_ASSIGN_OR_RETURN(builders.emplace_back(), arrow::MakeBuilder(field->type()));
  }
  for (std::size_t row = 0; row < answers.size(); ++row) {
    const Completion& sample = answers[row].samples.front();
    if (sample.reason == FinishReason::kError) {
      const auto at = static_cast<std::int64_t>(row);
      failed.push_back({at, {id_, sample.error_code, sample.error_message}});
      for (auto& builder : builders) MS_RETURN_NOT_OK(builder->AppendNull());
    } else {
      MS_RETURN_NOT_OK(AppendScores(answers[row], builders));
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
