// SPDX-License-Identifier: Apache-2.0
#include "job/job.h"

#include <chrono>
#include <random>
#include <utility>

#include "arrow/io/interfaces.h"
#include "fmt/format.h"
#include "job/assembler.h"
#include "job/hashing_stream.h"
#include "job/publisher.h"
#include "job/results.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Counts for the monitor on the way into the assembler.
class MonitoredSink final : public RowSink {
 public:
  MonitoredSink(RowSink& sink, JobMonitor& monitor, const std::vector<std::string>& files)
      : sink_(sink), monitor_(monitor), files_(files) {}
  Status Finish(FinishedRows rows) override {
    monitor_.Count(rows, files_);
    return sink_.Finish(std::move(rows));
  }

 private:
  RowSink& sink_;
  JobMonitor& monitor_;
  const std::vector<std::string>& files_;
};

std::vector<std::string> FileNames(const Snapshot& snapshot) {
  std::vector<std::string> names;
  names.reserve(snapshot.files.size());
  for (const InputFile& file : snapshot.files) names.push_back(file.name);
  return names;
}

AssemblerOptions AssemblerOptionsOf(const PreparedJob& job) {
  AssemblerOptions options;
  options.schema = job.plan.output;
  options.files = FileNames(job.plan.snapshot);
  options.keep_ok = job.spec.output.keep_ok;
  options.keep_errors = job.spec.output.keep_errors;
  options.keep_skipped = job.spec.output.keep_skipped;
  options.version = job.spec_version;
  return options;
}

std::map<std::string, std::string> PartMetadata(const Ledger& ledger, const FinishedSplit& split) {
  return {
      {"millstream.job", ledger.id()},
      {"millstream.split", std::to_string(split.split)},
      {"millstream.ok", std::to_string(split.counts.ok)},
      {"millstream.error", std::to_string(split.counts.error)},
      {"millstream.skipped", std::to_string(split.counts.skipped)}
  };
}

Result<FileMark> WriteRows(
    Storage& storage,
    OutputFormat format,
    const std::shared_ptr<arrow::Schema>& schema,
    const std::map<std::string, std::string>& metadata,
    const arrow::RecordBatchVector& batches,
    const std::string& path
) {
  MS_ASSIGN_OR_RETURN(auto file, storage.Create(path));
  auto stream = std::make_shared<HashingStream>(std::move(file));
  MS_ASSIGN_OR_RETURN(auto writer, MakeTableWriter(format, schema, stream, metadata));
  for (const auto& batch : batches) MS_RETURN_NOT_OK(writer->Write(*batch));
  MS_RETURN_NOT_OK(writer->Close());
  MS_ASSIGN_OR_RETURN(const std::int64_t bytes, stream->Tell());
  MS_RETURN_NOT_OK(stream->Close());
  return FileMark{stream->Hex(), static_cast<std::uint64_t>(bytes)};
}

Result<FinishedPart> WritePart(
    Storage& storage,
    const Ledger& ledger,
    OutputFormat format,
    const std::shared_ptr<arrow::Schema>& schema,
    const FinishedSplit& split
) {
  FinishedPart part;
  part.split = split.split;
  part.path = ledger.TemporaryPath(split.split);
  part.committed.counts = split.counts;
  part.committed.skipped_rows = split.skipped_rows;
  const auto metadata = PartMetadata(ledger, split);
  MS_ASSIGN_OR_RETURN(
      part.committed.file, WriteRows(storage, format, schema, metadata, split.batches, part.path)
  );
  if (split.errors.empty()) return part;
  part.errors_path =
      ledger.TemporaryPath(fmt::format("errors-{:06d}{}", split.split, ledger.layout().suffix));
  MS_ASSIGN_OR_RETURN(
      part.committed.errors,
      WriteRows(storage, format, schema, metadata, split.errors, part.errors_path)
  );
  return part;
}

// The parts of a single-file output, one after the other, as one file.
Status WriteSingleFile(Storage& storage, Ledger& ledger, OutputFormat format, const Plan& plan) {
  const std::string temporary = ledger.TemporaryPath("output" + ledger.layout().suffix);
  MS_ASSIGN_OR_RETURN(auto stream, storage.Create(temporary));
  MS_ASSIGN_OR_RETURN(
      auto writer, MakeTableWriter(format, plan.output, stream, {{"millstream.job", ledger.id()}})
  );
  for (const Split& split : plan.splits) {
    MS_ASSIGN_OR_RETURN(
        auto reader, OpenWritten(format, ledger.layout().PartPath(split.number), plan.output)
    );
    std::shared_ptr<arrow::RecordBatch> batch;
    while (true) {
      MS_RETURN_NOT_OK(reader->ReadNext(&batch));
      if (!batch) break;
      MS_RETURN_NOT_OK(writer->Write(*batch));
    }
  }
  MS_RETURN_NOT_OK(writer->Close());
  MS_RETURN_NOT_OK(stream->Close());
  return ledger.PublishOutput(temporary);
}

Status CreateLedger(Storage& storage, PreparedJob& job, const JobOptions& options) {
  MS_ASSIGN_OR_RETURN(const OutputLayout layout, OutputLayoutOf(job.spec));
  if (!job.lock) {
    MS_ASSIGN_OR_RETURN(job.lock, LockOutput(storage, layout));
  }
  MS_ASSIGN_OR_RETURN(const Json plan, PlanToJson(job.plan));
  std::random_device device;
  const Json record = {
      {"id", fmt::format("{:08x}{:08x}{:08x}{:08x}", device(), device(), device(), device())},
      {"name", job.spec.name},
      {"version", MS_VERSION},
      {"spec", job.spec.canonical},
      {"file", SpecSource(job.spec, options.overrides)}
  };
  auto created = Ledger::Create(storage, layout, record, plan);
  if (created.status().IsAlreadyExists()) {
    return Status::Cancelled(
        layout.output, " was begun by another run just now: run this again to continue it"
    );
  }
  MS_ASSIGN_OR_RETURN(job.ledger, std::move(created));
  return Status::OK();
}

Json Manifest(const PreparedJob& job, const RowCounts& counts) {
  return {
      {"job", job.ledger->id()},
      {"rows", counts.total()},
      {"ok", counts.ok},
      {"error", counts.error},
      {"skipped", counts.skipped},
      {"parts", job.plan.splits.size()},
      {"plans", 1 + job.ledger->more_plans().size()}
  };
}

bool TooManyErrors(const JobSpec& spec, const RowCounts& counts) {
  if (!spec.max_errors) return false;
  if (!spec.max_errors->is_percent) {
    return static_cast<double>(counts.error) > spec.max_errors->value;
  }
  const auto judged = static_cast<double>(counts.ok + counts.error);
  return static_cast<double>(counts.error) * 100 > spec.max_errors->value * judged;
}

Status RunSplits(
    const PreparedJob& job,
    const std::vector<Split>& splits,
    const JobOptions& options,
    JobEngines& engines,
    JobMonitor& monitor,
    Assembler& assembler,
    ResultStore* results,
    std::stop_token stop
) {
  const std::vector<std::string> files = FileNames(job.plan.snapshot);
  MonitoredSink sink(assembler, monitor, files);
  MS_RETURN_NOT_OK(assembler.FinishEmptySplits());
  RunnerInput input{
      &job.bound,
      &job.plan.snapshot,
      &job.input,
      splits,
      engines.by_key,
      &monitor.cut_answers,
      results,
      options.drain
  };
  const Status status = RunPipeline(input, options.runner, sink, stop);
  monitor.End();
  return status;
}

std::vector<const Engine*> Views(const JobEngines& engines) {
  std::vector<const Engine*> views;
  views.reserve(engines.owned.size());
  for (const auto& engine : engines.owned) views.push_back(engine.get());
  return views;
}

// The splits whose parts do not stand yet; `before` gets the counts of those that do.
Result<std::vector<Split>> OpenSplits(const PreparedJob& job, RowCounts* before) {
  MS_ASSIGN_OR_RETURN(const auto parts, job.ledger->Parts());
  std::vector<Split> open;
  for (const Split& split : job.plan.splits) {
    const auto found = parts.find(split.number);
    if (found == parts.end()) {
      open.push_back(split);
    } else {
      *before += found->second.counts;
    }
  }
  return open;
}

std::int64_t RowsOf(const std::vector<Split>& splits) {
  std::int64_t rows = 0;
  for (const Split& split : splits) rows += split.num_rows;
  return rows;
}

std::vector<std::int64_t> Numbers(const std::vector<Split>& splits) {
  std::vector<std::int64_t> numbers;
  numbers.reserve(splits.size());
  for (const Split& split : splits) numbers.push_back(split.number);
  return numbers;
}

Status RunOpenSplits(
    Storage& storage,
    PreparedJob& job,
    const JobOptions& options,
    const std::vector<Split>& open,
    const RowCounts& before,
    JobResults* results,
    JobMonitor& monitor,
    std::stop_token stop
) {
  MS_ASSIGN_OR_RETURN(const OutputFormat format, OutputFormatOf(job.spec));
  JobEngines engines;
  if (RowsOf(open) > 0) {
    MS_ASSIGN_OR_RETURN(engines, StartEngines(job, options.make_engine));
  }
  monitor.Start(RowsOf(job.plan.splits), before, Views(engines));
  Publisher publisher(*job.ledger);
  Assembler assembler(AssemblerOptionsOf(job), open, [&](const FinishedSplit& split) -> Status {
    MS_ASSIGN_OR_RETURN(
        FinishedPart part, WritePart(storage, *job.ledger, format, job.plan.output, split)
    );
    if (results != nullptr) results->Forget(split.split);
    return publisher.Add(std::move(part));
  });
  const Status ran = RunSplits(job, open, options, engines, monitor, assembler, results, stop);
  const Status published = publisher.Finish();  // also of a run that failed, or that it stopped
  if (results != nullptr) MS_RETURN_NOT_OK(results->Finish());
  MS_RETURN_NOT_OK(published);
  MS_RETURN_NOT_OK(ran);
  if (job.ledger->layout().is_single_file) {
    MS_RETURN_NOT_OK(WriteSingleFile(storage, *job.ledger, format, job.plan));
  }
  return Status::OK();
}

// Writes down what of the job is another than before, now that it is at work.
Status RecordChanges(PreparedJob& job) {
  if (job.spec_change) {
    MS_RETURN_NOT_OK(job.ledger->Record(EntryType::kSpecAccept, *job.spec_change));
  }
  return job.more_plan ? job.ledger->AppendPlan(*job.more_plan) : Status::OK();
}

}  // namespace

Result<JobReport> RunJob(
    Storage& storage,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  const auto start = Clock::now();
  MS_ASSIGN_OR_RETURN(
      PreparedJob job, PrepareJob(storage, options, /*use_output=*/true, say, stop)
  );
  if (!job.ledger) MS_RETURN_NOT_OK(CreateLedger(storage, job, options));
  MS_RETURN_NOT_OK(job.ledger->Begin(ThisDriver()).status());
  MS_RETURN_NOT_OK(RecordChanges(job));
  JobReport report;
  report.output = job.ledger->layout().output;
  MS_ASSIGN_OR_RETURN(const std::vector<Split> open, OpenSplits(job, &report.rows_before));
  MS_ASSIGN_OR_RETURN(const auto success, job.ledger->Success());
  MS_ASSIGN_OR_RETURN(const bool stands, job.ledger->OutputStands());
  report.had_nothing_to_do =
      success.has_value() && open.empty() && stands &&
      success->value("plans", std::size_t{0}) == 1 + job.ledger->more_plans().size();
  report.rows = report.rows_before;
  std::unique_ptr<JobResults> results;
  if (!report.had_nothing_to_do && !job.models.empty()) {
    MS_ASSIGN_OR_RETURN(results, JobResults::Load(*job.ledger, Numbers(open)));
    for (const std::string& damage : results->damage()) say(damage);
  }
  if (job.resumed) {
    say(fmt::format(
        "{}: {} of {} rows done{}",
        report.had_nothing_to_do ? "nothing to do" : "resuming",
        report.rows_before.total(),
        RowsOf(job.plan.splits),
        results ? fmt::format(", {} in the row log", results->rows_found()) : ""
    ));
  }
  if (!report.had_nothing_to_do) {
    const Status status = RunOpenSplits(
        storage, job, options, open, report.rows_before, results.get(), monitor, stop
    );
    if (!status.ok() && !status.IsCancelled()) return status;
    report.rows = monitor.progress().rows;
    report.errors = monitor.errors();
    report.tokens = monitor.progress().tokens;
    report.cut_answers = monitor.cut_answers;
    if (status.IsCancelled()) {
      MS_RETURN_NOT_OK(job.ledger->Record(
          EntryType::kDrain, {{"rows", report.rows.total()}, {"of", RowsOf(job.plan.splits)}}
      ));
      report.exit = ExitCode::kStopped;
      report.seconds = SecondsSince(start);
      return report;
    }
    MS_RETURN_NOT_OK(job.ledger->WriteSuccess(Manifest(job, report.rows)));
  }
  report.exit =
      TooManyErrors(job.spec, report.rows) ? ExitCode::kTooManyErrors : ExitCode::kComplete;
  report.seconds = SecondsSince(start);
  return report;
}

Result<Preview> RunInMemory(
    const PreparedJob& job,
    const std::vector<Split>& splits,
    const JobOptions& options,
    JobMonitor& monitor,
    std::stop_token stop
) {
  Preview preview;
  preview.schema = job.plan.output;
  preview.rows_in_input = job.plan.snapshot.num_rows;
  MS_ASSIGN_OR_RETURN(JobEngines engines, StartEngines(job, options.make_engine));
  monitor.Start(RowsOf(splits), {}, Views(engines));
  std::map<std::int64_t, FinishedSplit> done;
  Mutex mutex;
  AssemblerOptions assembler_options = AssemblerOptionsOf(job);
  assembler_options.keep_skipped = true;
  Assembler assembler(assembler_options, splits, [&](FinishedSplit split) {
    MutexLock lock(mutex);
    done[split.split] = std::move(split);
    return Status::OK();
  });
  const auto start = Clock::now();
  MS_RETURN_NOT_OK(RunSplits(job, splits, options, engines, monitor, assembler, nullptr, stop));
  preview.seconds = SecondsSince(start);
  for (auto& [number, split] : done) {
    preview.counts += split.counts;
    for (auto& batch : split.batches) preview.rows.push_back(std::move(batch));
  }
  return preview;
}

Result<Preview> RunPreview(
    Storage& storage,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  MS_ASSIGN_OR_RETURN(
      const PreparedJob job, PrepareJob(storage, options, /*use_output=*/false, say, stop)
  );
  return RunInMemory(job, job.plan.splits, options, monitor, stop);
}

ExitCode ExitCodeOf(const Status& status) {
  if (status.IsCancelled() || IsDiskFull(status)) return ExitCode::kStopped;
  return IsConflict(status) ? ExitCode::kConflict : ExitCode::kWrong;
}

}  // namespace millstream
