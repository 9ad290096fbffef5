// SPDX-License-Identifier: Apache-2.0
#include "job/execute.h"

#include <utility>

#include "arrow/io/interfaces.h"
#include "fmt/format.h"
#include "job/hashing_stream.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// Counts for the monitor and the breaker on the way into the assembler.
class MonitoredSink final : public RowSink {
 public:
  MonitoredSink(
      RowSink& sink, JobMonitor& monitor, const std::vector<std::string>& files, Breaker* breaker
  )
      : sink_(sink), monitor_(monitor), files_(files), breaker_(breaker) {}
  Status Finish(FinishedRows rows) override {
    monitor_.Count(rows, files_);
    if (breaker_ != nullptr) MS_RETURN_NOT_OK(breaker_->Count(rows));
    return sink_.Finish(std::move(rows));
  }
  Status End(const Piece& piece) override { return sink_.End(piece); }

 private:
  RowSink& sink_;
  JobMonitor& monitor_;
  const std::vector<std::string>& files_;
  Breaker* const breaker_;
};

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
    const Plan& plan,
    const std::map<std::string, std::string>& metadata,
    const arrow::RecordBatchVector& batches,
    const std::string& path
) {
  MS_ASSIGN_OR_RETURN(auto file, storage.Create(path));
  auto stream = std::make_shared<HashingStream>(std::move(file));
  MS_ASSIGN_OR_RETURN(
      auto writer, MakeTableWriter(format, plan.output, stream, metadata, FileNames(plan.snapshot))
  );
  for (const auto& batch : batches) MS_RETURN_NOT_OK(writer->Write(*batch));
  MS_RETURN_NOT_OK(writer->Close());
  MS_ASSIGN_OR_RETURN(const std::int64_t bytes, stream->Tell());
  MS_RETURN_NOT_OK(stream->Close());
  return FileMark{stream->Hex(), static_cast<std::uint64_t>(bytes)};
}

}  // namespace

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

DiskGuardOptions DiskGuardOptionsOf(
    const PreparedJob& job, const JobOptions& options, const JobMonitor& monitor
) {
  DiskGuardOptions guard;
  guard.output = job.ledger->layout().output;
  guard.folder = job.ledger->layout().state;
  guard.ballast = job.ledger->TemporaryPath("ballast");
  guard.bytes_in_flight = &monitor.bytes_in_flight;
  guard.drain = options.drain;
  guard.interval = options.disk_interval;
  return guard;
}

Result<FinishedPart> WritePart(
    Storage& storage,
    const Ledger& ledger,
    OutputFormat format,
    const Plan& plan,
    const FinishedSplit& split
) {
  FinishedPart part;
  part.split = split.split;
  // Of the piece: a worker may be lent a split again before its part stands.
  const std::string name = fmt::format("{:06d}{}", split.piece, ledger.layout().suffix);
  part.path = ledger.TemporaryPath("part-" + name);
  part.committed.counts = split.counts;
  part.committed.skipped_rows = split.skipped_rows;
  const auto metadata = PartMetadata(ledger, split);
  MS_ASSIGN_OR_RETURN(
      part.committed.file, WriteRows(storage, format, plan, metadata, split.batches, part.path)
  );
  if (split.errors.empty()) return part;
  part.errors_path = ledger.TemporaryPath("errors-" + name);
  MS_ASSIGN_OR_RETURN(
      part.committed.errors,
      WriteRows(storage, format, plan, metadata, split.errors, part.errors_path)
  );
  return part;
}

namespace {

// The rows of some files, one after the other, as one unpublished file.
Result<FinishedFile> JoinFiles(
    Storage& storage,
    const Ledger& ledger,
    OutputFormat format,
    const Plan& plan,
    const std::vector<std::string>& paths,
    const std::string& name
) {
  const std::string temporary = ledger.TemporaryPath(name + ledger.layout().suffix);
  const std::vector<std::string> inputs = FileNames(plan.snapshot);
  MS_ASSIGN_OR_RETURN(auto file, storage.Create(temporary));
  auto stream = std::make_shared<HashingStream>(std::move(file));
  MS_ASSIGN_OR_RETURN(
      auto writer,
      MakeTableWriter(format, plan.output, stream, {{"millstream.job", ledger.id()}}, inputs)
  );
  for (const std::string& path : paths) {
    MS_ASSIGN_OR_RETURN(auto part, storage.Open(path));
    MS_ASSIGN_OR_RETURN(
        auto reader, OpenWritten(format, std::move(part), path, plan.output, inputs, ledger.id())
    );
    std::shared_ptr<arrow::RecordBatch> batch;
    while (true) {
      MS_RETURN_NOT_OK(reader->ReadNext(&batch));
      if (!batch) break;
      MS_RETURN_NOT_OK(writer->Write(*batch));
    }
  }
  MS_RETURN_NOT_OK(writer->Close());
  MS_ASSIGN_OR_RETURN(const std::int64_t bytes, stream->Tell());
  MS_RETURN_NOT_OK(stream->Close());
  return FinishedFile{temporary, {stream->Hex(), static_cast<std::uint64_t>(bytes)}};
}

}  // namespace

Status WriteSingleFile(Storage& storage, Ledger& ledger, OutputFormat format, const Plan& plan) {
  const OutputLayout& layout = ledger.layout();
  std::vector<std::string> parts;
  for (const Split& split : plan.splits) parts.push_back(layout.PartPath(split.number));
  MS_ASSIGN_OR_RETURN(
      const FinishedFile output, JoinFiles(storage, ledger, format, plan, parts, "output")
  );
  if (layout.errors.empty()) return ledger.PublishOutput(output, std::nullopt);
  std::vector<std::string> errors;
  MS_ASSIGN_OR_RETURN(const auto committed, ledger.Parts());
  for (const auto& [split, part] : committed) {
    if (part.errors) errors.push_back(layout.ErrorsPath(split, part.errors->hash));
  }
  MS_ASSIGN_OR_RETURN(
      const FinishedFile failed, JoinFiles(storage, ledger, format, plan, errors, "errors")
  );
  return ledger.PublishOutput(output, failed);
}

void SayIgnored(const BoundJob& job, const Say& say) {
  for (const Segment& segment : job.segments) {
    if (!segment.generate) continue;
    const std::string ignored = segment.generate->IgnoredInWords();
    if (!ignored.empty()) say("warning: " + ignored);
  }
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

Status RunWork(
    const PreparedJob& job,
    WorkSource& work,
    const JobOptions& options,
    const JobEngines& engines,
    JobMonitor& monitor,
    RowSink& sink,
    ResultStore* results,
    Breaker* breaker,
    std::stop_token stop
) {
  const std::vector<std::string> files = FileNames(job.plan.snapshot);
  MonitoredSink monitored(sink, monitor, files, breaker);
  RunnerInput input{
      &job.bound,
      &job.plan.snapshot,
      &job.input,
      &work,
      engines.by_key,
      &monitor.cut_answers,
      results,
      options.drain,
      job.blamed.get(),
      &monitor.bytes_in_flight
  };
  const Status status = RunPipeline(input, options.runner, monitored, stop);
  monitor.End();
  return status;
}

std::vector<const Engine*> Views(const JobEngines& engines) {
  std::vector<const Engine*> views;
  views.reserve(engines.owned.size());
  for (const auto& engine : engines.owned) views.push_back(engine.get());
  return views;
}

std::int64_t RowsOf(const std::vector<Split>& splits) {
  std::int64_t rows = 0;
  for (const Split& split : splits) rows += split.num_rows;
  return rows;
}

}  // namespace millstream
