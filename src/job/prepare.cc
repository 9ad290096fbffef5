// SPDX-License-Identifier: Apache-2.0
// From a job file to a job that is ready to run. Writes nothing.
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <numeric>
#include <utility>

#include "arrow/io/memory.h"
#include "base/nearest.h"
#include "data/reader.h"
#include "engine/native_engine.h"
#include "fmt/chrono.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "job/job.h"
#include "job/resume.h"
#include "job/served.h"
#include "job/status.h"
#include "model/locate.h"
#include "storage/path.h"

namespace millstream {
namespace {

constexpr std::int64_t kSampleRows = 1000;
// For a server that is not there yet when the job begins.
constexpr std::chrono::milliseconds kServerPatience = std::chrono::minutes(15);

// Opens the models that generate steps use: headers, tokenizer and template, not yet the weights.
// `pinned` are a plan's.
Status OpenModels(
    PreparedJob& job,
    const std::map<std::string, PlannedModel>& pinned,
    std::chrono::milliseconds patience,
    const Say& say,
    std::stop_token stop
) {
  std::map<std::string, std::shared_ptr<const LanguageModel>> opened;  // by path
  for (const StepSpec& step : job.spec.steps) {
    const auto* generate = std::get_if<GenerateSpec>(&step.body);
    if (generate == nullptr || job.models.contains(generate->model)) continue;
    ModelSpec spec;
    spec.path = generate->model;
    const auto place = generate->places.find("model");
    spec.place = place == generate->places.end() ? step.place : place->second;
    if (const auto found = job.spec.models.find(generate->model); found != job.spec.models.end()) {
      spec = found->second;
    }
    const auto wrong = [&](const Status& status) {
      return Status::Invalid(MistakeLine(job.spec, spec.place, status.message()));
    };
    if (!spec.is_native) {
      const auto known = pinned.find(generate->model);
      auto bound = BindServed(
          spec,
          known == pinned.end() ? nullptr : &known->second,
          patience,
          say,
          stop,
          job.plan.models[generate->model]
      );
      if (IsEngineBroken(bound.status())) return bound.status();
      if (!bound.ok()) return wrong(bound.status());
      job.models[generate->model] = *std::move(bound);
      job.model_specs[generate->model] = spec;
      continue;
    }
    auto path = LocateModel(spec.path, DefaultModelSearch(job.spec.folder));
    if (!path.ok()) {
      std::vector<std::string> keys;
      keys.reserve(job.spec.models.size());
      for (const auto& [key, unused] : job.spec.models) keys.push_back(key);
      const bool is_key = job.spec.models.contains(generate->model);
      const std::string hint = is_key || keys.empty() ? "" : DidYouMean(generate->model, keys);
      return wrong(path.status().WithMessage(
          path.status().message(), hint.empty() ? "" : "; of the names in `models`" + hint
      ));
    }
    auto& model = opened[*path];
    if (!model) {
      auto open = OpenLanguageModel(*path, "");
      if (!open.ok()) return wrong(open.status());
      model = *std::move(open);
    }
    BoundModel bound;
    bound.model = model;
    bound.context = spec.context.value_or(model->context);
    if (bound.context < 1 || bound.context > model->context) {
      return wrong(Status::Invalid(
          fmt::format("context {} is beyond the model's {}", bound.context, model->context)
      ));
    }
    auto grammars = GrammarCompiler::Make(model->tokenizer, model->stop_tokens);
    if (!grammars.ok()) return wrong(grammars.status());
    bound.grammars = *std::move(grammars);
    const Compute compute = ResolveCompute(ComputeFromName(spec.compute));
    PlannedModel& planned = job.plan.models[generate->model];
    planned.path = *path;
    planned.compute = ComputeName(compute);
    planned.hash = model->checkpoint->hash;
    bound.identity = fmt::format(
        "{:016x} {} {}", model->checkpoint->hash, ComputeName(compute), InstructionSet()
    );
    job.models[generate->model] = std::move(bound);
    job.model_specs[generate->model] = spec;
    job.plan.instruction_set = InstructionSet();  // its answers are those of one kind of machine
  }
  return Status::OK();
}

// The first rows of the input, for the types of computed columns.
Result<RowBatch> ReadSample(const PreparedJob& job) {
  SplitReader reader(job.plan.snapshot, job.input, {}, kSampleRows);
  const std::vector<Split> first = LimitSplits(job.plan.splits, kSampleRows, /*spread=*/false);
  arrow::RecordBatchVector batches;
  for (const Split& split : first) {
    MS_RETURN_NOT_OK(reader.Open(split));
    while (true) {
      MS_ASSIGN_OR_RETURN(std::optional<InputBatch> batch, reader.Next());
      if (!batch) break;
      std::vector<std::int64_t> good;
      auto error = batch->errors.begin();
      auto skipped = batch->skipped.begin();
      for (std::int64_t row = 0; row < batch->columns->num_rows(); ++row) {
        if (error != batch->errors.end() && error->first == row) {
          ++error;
        } else if (skipped != batch->skipped.end() && *skipped == row) {
          ++skipped;
        } else {
          good.push_back(row);
        }
      }
      MS_ASSIGN_OR_RETURN(batches.emplace_back(), TakeColumns(batch->columns, good));
    }
  }
  RowBatch sample;
  if (batches.empty()) {
    MS_ASSIGN_OR_RETURN(sample.columns, arrow::RecordBatch::MakeEmpty(job.plan.snapshot.schema));
  } else {
    MS_ASSIGN_OR_RETURN(sample.columns, arrow::ConcatenateRecordBatches(batches));
  }
  const std::int64_t count = sample.columns->num_rows();
  sample.kept = arrow::RecordBatch::Make(arrow::schema({}), count, arrow::ArrayVector{});
  sample.rows.resize(static_cast<std::size_t>(count));
  return sample;
}

// An output below an input folder would be read as input once it is moved aside, or by other jobs.
Status CheckOutputIsNoInput(const JobSpec& spec, const OutputLayout& layout) {
  for (const std::string& input : spec.input.paths) {
    const std::string folder = CleanPath(spec.folder, input);
    std::error_code ignored;
    const bool below = layout.output.starts_with(folder + "/");
    const bool is_folder = IsObjectPath(folder) || std::filesystem::is_directory(folder, ignored);
    if (!below || !is_folder) continue;
    return Status::Invalid(MistakeLine(
        spec,
        spec.output.place,
        fmt::format("{} lies in the input folder {}: write elsewhere", layout.output, input)
    ));
  }
  return Status::OK();
}

Status PlanAnew(PreparedJob& job, const JobOptions& options, std::stop_token stop) {
  MS_ASSIGN_OR_RETURN(job.plan.snapshot, TakeSnapshot(job.input, stop));
  job.plan.splits = CutSplits(job.plan.snapshot, job.spec.split_rows, kSplitBytes);
  if (options.limit > 0) {
    job.plan.splits = LimitSplits(job.plan.splits, options.limit, options.spread);
  }
  // An input without rows still gives a part, which shows its columns.
  if (job.plan.splits.empty()) job.plan.splits.emplace_back();
  job.plan.now_unix_seconds = std::chrono::duration_cast<std::chrono::seconds>(
                                  std::chrono::system_clock::now().time_since_epoch()
  )
                                  .count();
  return Status::OK();
}

// Takes over what stands at the output, if anything does.
Status TakeOutput(
    Storage& storage, const OutputLayout& layout, bool restart, const Say& say, PreparedJob& job
) {
  MS_RETURN_NOT_OK(FinishMoveAside(storage, layout));
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> state, storage.List(layout.state));
  if (!state.empty()) {
    MS_ASSIGN_OR_RETURN(job.lock, LockOutput(storage, layout));
  }
  if (restart) {
    MS_ASSIGN_OR_RETURN(const std::vector<std::string> moved, MoveAside(storage, layout));
    for (const std::string& path : moved) say("moved aside: " + path);
    job.lock.reset();
  }
  MS_ASSIGN_OR_RETURN(job.ledger, Ledger::Load(storage, layout));
  return Status::OK();
}

}  // namespace

nlohmann::ordered_json ThisDriver() {
  std::string host(256, '\0');
  if (gethostname(host.data(), host.size() - 1) != 0) host = "?";
  host.resize(std::strlen(host.c_str()));
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return {
      {"pid", getpid()},
      {"host", host},
      {"since", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))},
      {"version", MS_VERSION}
  };
}

Result<std::unique_ptr<StorageLock>> LockOutput(Storage& storage, const OutputLayout& layout) {
  auto lock = storage.Lock(Ledger::LockPath(layout), ThisDriver().dump());
  if (!lock.status().IsAlreadyExists()) return lock;
  return Status::Cancelled(fmt::format(
      "{} is being written by another run ({}): it goes on there; wait for it, or stop it and run "
      "this again",
      layout.output,
      HolderInWords(lock.status().message())
  ));
}

Result<PreparedJob> PrepareJob(
    Storage& storage,
    const JobOptions& options,
    bool use_output,
    const Say& say,
    std::stop_token stop
) {
  PreparedJob job;
  MS_ASSIGN_OR_RETURN(
      job.spec,
      options.text ? ParseJobText(*options.text, options.file, options.overrides)
                   : ParseJobFile(options.file, options.overrides)
  );
  MS_ASSIGN_OR_RETURN(job.input, InputOptionsOf(job.spec));
  MS_ASSIGN_OR_RETURN(const OutputLayout layout, OutputLayoutOf(job.spec));
  MS_RETURN_NOT_OK(CheckOutputIsNoInput(job.spec, layout));
  if (use_output) MS_RETURN_NOT_OK(TakeOutput(storage, layout, options.restart, say, job));
  std::optional<Plan> planned;
  if (job.ledger) {
    MS_ASSIGN_OR_RETURN(planned, PlannedBefore(*job.ledger));
  }
  const auto patience = use_output ? kServerPatience : std::chrono::milliseconds(0);
  const std::map<std::string, PlannedModel> none;
  MS_RETURN_NOT_OK(OpenModels(job, planned ? planned->models : none, patience, say, stop));
  if (planned) {
    MS_RETURN_NOT_OK(ResumePlan(job, *std::move(planned), options, say, stop));
  } else {
    MS_RETURN_NOT_OK(PlanAnew(job, options, stop));
  }
  MS_ASSIGN_OR_RETURN(const RowBatch sample, ReadSample(job));
  BindOptions bind{&job.models, job.plan.now_unix_seconds};
  MS_ASSIGN_OR_RETURN(job.bound, BindJob(job.spec, sample, bind));
  // A column that the format cannot hold is found here, not at the first part.
  MS_ASSIGN_OR_RETURN(const OutputFormat format, OutputFormatOf(job.spec));
  auto nowhere = std::make_shared<arrow::io::MockOutputStream>();
  MS_RETURN_NOT_OK(MakeTableWriter(format, job.bound.output, std::move(nowhere), {}).status());
  if (job.resumed) {
    MS_RETURN_NOT_OK(CheckSameColumns(job));
  } else {
    job.plan.output = job.bound.output;
    job.plan.settings = job.bound.settings;
  }
  return job;
}

}  // namespace millstream
