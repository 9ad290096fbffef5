// SPDX-License-Identifier: Apache-2.0
// From a job file to a job that is ready to run. Writes nothing.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <numeric>
#include <utility>

#include "arrow/io/memory.h"
#include "base/nearest.h"
#include "base/parse_json.h"
#include "data/reader.h"
#include "engine/native_engine.h"
#include "fmt/chrono.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "job/custom_ids.h"
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

using OpenedModels = std::map<std::string, std::shared_ptr<const LanguageModel>>;  // by path

// What request bodies may call a model.
std::vector<std::string> NamesOf(const ModelSpec& spec) {
  std::vector<std::string> names = spec.served_names;
  names.push_back(spec.is_native ? spec.path : spec.served_model);
  return names;
}

// What a name that is no model may have meant.
std::string NearModel(const JobSpec& spec, const std::string& name) {
  std::vector<std::string> keys;
  keys.reserve(spec.models.size());
  for (const auto& [key, unused] : spec.models) keys.push_back(key);
  const std::string hint = keys.empty() || spec.models.contains(name) ? "" : DidYouMean(name, keys);
  return hint.empty() ? "" : "; of the names in `models`" + hint;
}

// Opens headers, tokenizer and template, not yet the weights. What `compute: auto` means stays as
// an older version planned it (`pinned`, may be null), as long as the model is the same.
Result<BoundModel> BindNative(
    const JobSpec& job,
    const ModelSpec& spec,
    const PlannedModel* pinned,
    OpenedModels& opened,
    PlannedModel& planned
) {
  MS_ASSIGN_OR_RETURN(planned.path, LocateModel(spec.path, DefaultModelSearch(job.folder)));
  auto& model = opened[planned.path];
  if (!model) {
    MS_ASSIGN_OR_RETURN(model, OpenLanguageModel(planned.path, ""));
  }
  BoundModel bound;
  bound.model = model;
  bound.context = spec.context.value_or(model->context);
  if (bound.context < 1 || bound.context > model->context) {
    return Status::Invalid(
        fmt::format("context {} is beyond the model's {}", bound.context, model->context)
    );
  }
  MS_ASSIGN_OR_RETURN(bound.grammars, GrammarCompiler::Make(model->tokenizer, model->stop_tokens));
  planned.hash = model->checkpoint->hash;
  Compute compute = ComputeFromName(spec.compute);
  if (compute == Compute::kAuto && pinned != nullptr && pinned->hash == planned.hash) {
    compute = ComputeFromName(pinned->compute);
  }
  planned.compute = ComputeName(ResolveCompute(compute, job.isa, *model->checkpoint));
  // What another machine answered counts as well, if the job does not mind.
  bound.identity =
      job.is_reproducible
          ? fmt::format("{:016x} {} {}", planned.hash, planned.compute, InstructionSet(job.isa))
          : fmt::format("{:016x} {}", planned.hash, spec.compute);
  return bound;
}

// Whether a step cuts the model's prompts.
bool Truncates(const JobSpec& spec, const std::string& model) {
  return std::any_of(spec.steps.begin(), spec.steps.end(), [&](const StepSpec& step) {
    const auto* generate = std::get_if<GenerateSpec>(&step.body);
    return generate != nullptr && generate->model == model && !generate->overflow_error;
  });
}

// Binds the models that generate steps use. `pinned` are a plan's; `served` is for those that
// servers run.
Status OpenModels(
    PreparedJob& job, const std::map<std::string, PlannedModel>& pinned, ServedBinding served
) {
  OpenedModels opened;
  for (const StepSpec& step : job.spec.steps) {
    const auto* generate = std::get_if<GenerateSpec>(&step.body);
    if (generate == nullptr || job.models.contains(generate->model)) continue;
    const std::string& name = generate->model;
    ModelSpec spec;
    spec.path = name;
    const auto place = generate->places.find("model");
    spec.place = place == generate->places.end() ? step.place : place->second;
    if (const auto found = job.spec.models.find(name); found != job.spec.models.end()) {
      spec = found->second;
    }
    const auto known = pinned.find(name);
    served.pinned = known == pinned.end() ? nullptr : &known->second;
    served.truncates = Truncates(job.spec, name);
    PlannedModel planned;
    auto bound = spec.is_native ? BindNative(job.spec, spec, served.pinned, opened, planned)
                                : BindServed(spec, served, planned);
    if (IsEngineBroken(bound.status())) return bound.status();
    if (!bound.ok()) {
      const std::string hint = planned.path.empty() ? NearModel(job.spec, name) : "";
      return Status::Invalid(MistakeLine(job.spec, spec.place, bound.status().message() + hint));
    }
    // Its answers are those of one kind of machine.
    if (spec.is_native) job.plan.instruction_set = InstructionSet(job.spec.isa);
    bound->names = NamesOf(spec);
    job.models[name] = *std::move(bound);
    job.model_specs[name] = spec;
    job.plan.models[name] = std::move(planned);
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

// An output below an input folder would be read as input once it is moved aside, or by other jobs;
// one that is an input would be moved aside itself.
Status CheckOutputIsNoInput(const JobSpec& spec, const OutputLayout& layout) {
  const auto mistake = [&](const std::string& message) {
    return Status::Invalid(MistakeLine(spec, spec.output.place, message));
  };
  for (const std::string& given : spec.input.paths) {
    const std::string input = ResolvedPath(CleanPath(spec.folder, given));
    std::error_code ignored;
    const bool is_folder = IsObjectPath(input) || std::filesystem::is_directory(input, ignored);
    for (const std::string& path : {layout.output, layout.errors}) {
      if (path.empty()) continue;
      const std::string output = ResolvedPath(path);
      if (output == input) {
        return mistake(fmt::format("{} is the input {}: write elsewhere", path, given));
      }
      if (is_folder && IsWithin(output, input)) {
        return mistake(fmt::format("{} lies in the input folder {}: write elsewhere", path, given));
      }
      if (IsWithin(input, output)) {
        return mistake(fmt::format("the input {} lies in {}: write elsewhere", given, path));
      }
    }
  }
  return Status::OK();
}

std::int64_t UnixSeconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

Status PlanAnew(PreparedJob& job, const JobOptions& options, std::stop_token stop) {
  MS_ASSIGN_OR_RETURN(job.plan.snapshot, TakeSnapshot(job.input, stop));
  job.plan.splits = CutSplits(job.plan.snapshot, job.spec.split_rows, kSplitBytes);
  if (options.limit > 0) {
    job.plan.splits = LimitSplits(job.plan.splits, options.limit, options.spread);
  }
  // An input without rows still gives a part, which shows its columns.
  if (job.plan.splits.empty()) job.plan.splits.emplace_back();
  return Status::OK();
}

// Takes over what stands at the output, if anything does.
Status TakeOutput(
    Storage& storage,
    const OutputLayout& layout,
    const JobOptions& options,
    const Say& say,
    PreparedJob& job
) {
  MS_RETURN_NOT_OK(FinishMoveAside(storage, layout));
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> state, storage.List(layout.state));
  if (!state.empty()) {
    MS_ASSIGN_OR_RETURN(job.lock, LockOutput(storage, layout, options));
  }
  if (options.restart) {
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

Result<std::unique_ptr<StorageLock>> LockOutput(
    Storage& storage, const OutputLayout& layout, const JobOptions& options
) {
  using Json = nlohmann::ordered_json;
  Json holder = ThisDriver();
  if (!options.coordinator.empty()) holder["coordinator"] = options.coordinator;
  auto lock = storage.Lock(Ledger::LockPath(layout), holder.dump());
  if (!lock.status().IsAlreadyExists()) return lock;
  const Json found = ParseJson<Json>(lock.status().message());
  if (options.begins_anew && found.is_object() &&
      found.value("coordinator", Json()) == options.coordinator) {
    return nullptr;
  }
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
    PrepareFor purpose,
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
  if (purpose == PrepareFor::kRun) {
    MS_RETURN_NOT_OK(TakeOutput(storage, layout, options, say, job));
  } else if (purpose == PrepareFor::kWorker) {
    MS_ASSIGN_OR_RETURN(job.ledger, Ledger::Load(storage, layout));
  }
  std::optional<Plan> planned;
  if (job.ledger) {
    MS_ASSIGN_OR_RETURN(planned, PlannedBefore(*job.ledger));
  }
  job.plan.now_unix_seconds = planned ? planned->now_unix_seconds : UnixSeconds();
  ServedBinding served;
  served.folder = job.spec.folder;
  served.now_unix_seconds = job.plan.now_unix_seconds;
  if (purpose != PrepareFor::kPreview) served.patience = kServerPatience;
  served.say = say;
  served.stop = stop;
  const std::map<std::string, PlannedModel> none;
  MS_RETURN_NOT_OK(OpenModels(job, planned ? planned->models : none, std::move(served)));
  if (planned) {
    if (purpose == PrepareFor::kWorker) MS_RETURN_NOT_OK(CheckComputesAlike(job, *planned));
    MS_RETURN_NOT_OK(ResumePlan(job, *std::move(planned), options, say, stop));
  } else {
    MS_RETURN_NOT_OK(PlanAnew(job, options, stop));
  }
  if (!job.resumed && job.spec.input.format == "openai-batch") {
    MS_ASSIGN_OR_RETURN(
        const std::string doubled,
        DoubledCustomIds(job.plan.snapshot, job.input, job.plan.splits, kCustomIdsMax, stop)
    );
    if (!doubled.empty()) say("warning: " + doubled);
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
