// SPDX-License-Identifier: Apache-2.0
#include "pipeline/testing.h"

#include <utility>

#include "arrow/compute/initialize.h"
#include "base/check.h"
#include "data/json_value.h"
#include "engine/testing.h"
#include "pipeline/parse_spec.h"

namespace millstream {
namespace {

// Opened once: its vocabulary is the tests' way between text and tokens.
const std::shared_ptr<const LanguageModel>& TinyLanguageModel() {
  static const std::shared_ptr<const LanguageModel> model = OpenTinyLanguageModel({});
  MS_CHECK(model != nullptr);
  return model;
}

Result<BoundModel> BindTinyModel() {
  BoundModel bound;
  bound.model = TinyLanguageModel();
  bound.context = bound.model->context;
  MS_ASSIGN_OR_RETURN(
      bound.grammars, GrammarCompiler::Make(bound.model->tokenizer, bound.model->stop_tokens)
  );
  return bound;
}

Result<std::string> Describe(const FinishedRows& rows, std::size_t row) {
  if (rows.status == RowStatus::kSkipped) return std::string("skipped");
  if (rows.status == RowStatus::kError) {
    return "error " + rows.errors[row].step + " " + rows.errors[row].code;
  }
  std::string text = "ok";
  for (const auto& column : rows.batch.columns->columns()) {
    text += ' ';
    MS_RETURN_NOT_OK(WriteJson(*column, static_cast<std::int64_t>(row), text));
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<TestJob>> TestJob::Make(
    const std::string& folder, const std::string& rows, const std::string& steps
) {
  MS_RETURN_NOT_OK(arrow::compute::Initialize());
  MS_RETURN_NOT_OK(WriteFile(folder + "/rows.jsonl", rows));
  MS_ASSIGN_OR_RETURN(
      const JobSpec spec,
      ParseJobText(
          "models: {first: {path: x}, second: {path: x}}\ninput: {path: rows.jsonl}\nsteps:\n" +
              steps + "output: {path: out}\n",
          folder + "/job.yaml",
          {}
      )
  );
  auto job = std::make_unique<TestJob>();
  job->input_.paths = {"rows.jsonl"};
  job->input_.base_folder = folder;
  job->input_.schema = {{"id", arrow::int64()}, {"text", arrow::utf8()}};
  MS_ASSIGN_OR_RETURN(job->snapshot_, TakeSnapshot(job->input_, {}));
  RowBatch sample;
  MS_ASSIGN_OR_RETURN(sample.columns, arrow::RecordBatch::MakeEmpty(job->snapshot_.schema));
  sample.kept = arrow::RecordBatch::Make(arrow::schema({}), 0, arrow::ArrayVector{});
  MS_ASSIGN_OR_RETURN(const BoundModel model, BindTinyModel());
  job->models_ = {{"first", model}, {"second", model}};
  MS_ASSIGN_OR_RETURN(job->bound, BindJob(spec, sample, {&job->models_, 0}));
  return job;
}

Status TestJob::Run(
    const RunnerOptions& options,
    std::int64_t split_rows,
    const std::map<std::string, Engine*>& engines,
    RowSink& sink,
    std::stop_token stop
) {
  const std::vector<Split> splits = Splits(split_rows);
  FixedWork work(splits);
  return RunWork(options, work, engines, sink, std::move(stop));
}

std::vector<Split> TestJob::Splits(std::int64_t split_rows) const {
  std::vector<Split> splits = CutSplits(snapshot_, split_rows, 1 << 20);
  splits.insert(splits.end(), more_splits.begin(), more_splits.end());
  for (std::size_t i = 0; i < splits.size(); ++i) splits[i].number = static_cast<std::int64_t>(i);
  return splits;
}

Status TestJob::RunWork(
    const RunnerOptions& options,
    WorkSource& work,
    const std::map<std::string, Engine*>& engines,
    RowSink& sink,
    std::stop_token stop
) {
  const RunnerInput run{&bound, &snapshot_, &input_, &work, engines, &cut_answers, results, drain};
  return RunPipeline(run, options, sink, std::move(stop));
}

std::string TestJob::PromptOf(const Request& request) {
  return TinyLanguageModel()->tokenizer->Decode(request.prompt_tokens, false).ValueOrDie();
}

Status RecordedRows::Finish(FinishedRows rows) {
  if (on_finish) MS_RETURN_NOT_OK(on_finish(rows));
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < rows.batch.rows.size(); ++i) {
    MS_ASSIGN_OR_RETURN(std::string text, Describe(rows, i));
    if (!rows_.emplace(rows.batch.rows[i].id.record, std::move(text)).second) {
      return Status::Invalid("a row came twice");
    }
  }
  return Status::OK();
}

std::map<std::int64_t, std::string> RecordedRows::rows() const {
  MutexLock lock(mutex_);
  return rows_;
}

}  // namespace millstream
