// SPDX-License-Identifier: Apache-2.0
#include "job/job.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <random>
#include <set>
#include <utility>

#include "arrow/io/interfaces.h"
#include "arrow/util/io_util.h"
#include "fmt/format.h"
#include "job/assembler.h"
#include "job/coordination.h"
#include "job/driver_end.h"
#include "job/execute.h"
#include "job/local_workers.h"
#include "job/results.h"
#include "job/worker.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Status CreateLedger(Storage& storage, PreparedJob& job, const JobOptions& options) {
  MS_ASSIGN_OR_RETURN(const OutputLayout layout, OutputLayoutOf(job.spec));
  if (!job.lock) {
    MS_ASSIGN_OR_RETURN(job.lock, LockOutput(storage, layout, options));
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

using Parts = std::map<std::int64_t, CommittedPart>;

// The splits whose parts do not stand yet; `before` gets the counts of those that do.
std::vector<Split> OpenSplits(const PreparedJob& job, const Parts& parts, RowCounts* before) {
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

// Rows of open splits that row logs have something of, and says what they have lost to damage.
Result<std::int64_t> RowsInLogs(
    const Ledger& ledger, const std::vector<Split>& open, const Say& say
) {
  std::set<std::int64_t> numbers;
  for (const Split& split : open) numbers.insert(split.number);
  MS_ASSIGN_OR_RETURN(const std::vector<std::int64_t> logged, ledger.LoggedSplits());
  std::int64_t count = 0;
  for (const std::int64_t split : logged) {
    if (!numbers.contains(split)) continue;
    MS_ASSIGN_OR_RETURN(const LoadedRows rows, ledger.LoadRows(split));
    count += RowsIn(rows);
    for (const std::string& damage : rows.damage) say(damage);
  }
  return count;
}

// What a driver runs its job with.
struct Driver {
  Storage& storage;
  PreparedJob& job;
  const JobOptions& options;
  DiskGuard& guard;
  JobMonitor& monitor;
  const Say& say;
};

// By the job's only worker, in this process.
Status RunByOneWorker(
    const Driver& driver,
    Coordination& coordination,
    bool has_rows,
    const RowCounts& before,
    std::stop_token stop
) {
  const auto& [storage, job, options, guard, monitor, say] = driver;
  JobEngines engines;
  if (has_rows) {
    MS_ASSIGN_OR_RETURN(engines, StartEngines(job, options.make_engine, say, stop));
  }
  monitor.Start(RowsOf(job.plan.splits), before, Views(engines));
  WorkerOptions worker = coordination.NewWorker(options, options.runner.threads);
  worker.job = options;
  const Exchange exchange = [&coordination](std::string_view report) {
    return coordination.Hear(report, Clock::now());
  };
  const Status ran =
      RunOwnWorker(storage, worker, {job, engines, monitor, guard}, exchange, std::move(stop));
  SayIgnored(job.bound, say);
  // A stop may come as the last row ends.
  return ran.IsCancelled() && coordination.is_over() ? Status::OK() : ran;
}

Status RunOpenSplits(
    const Driver& driver,
    const std::vector<Split>& open,
    const RowCounts& before,
    std::stop_token stop
) {
  const auto& [storage, job, options, guard, monitor, say] = driver;
  Coordination coordination(job, open, options.worker_silence, monitor, say);
  if (options.workers > 0 || options.run_workers) {
    monitor.Start(RowsOf(job.plan.splits), before, {});
    const WorkersRunner& run = options.run_workers ? options.run_workers : RunByLocalWorkers;
    const Status ran = run(coordination, job, options, say, stop);
    coordination.Show();
    MS_RETURN_NOT_OK(ran);
  } else {
    MS_RETURN_NOT_OK(RunByOneWorker(driver, coordination, RowsOf(open) > 0, before, stop));
  }
  if (!job.ledger->layout().is_single_file) return Status::OK();
  MS_ASSIGN_OR_RETURN(const OutputFormat format, OutputFormatOf(job.spec));
  return WriteSingleFile(storage, *job.ledger, format, job.plan);
}

// Writes down what of the job is another than before, now that it is at work.
Status RecordChanges(PreparedJob& job) {
  if (job.spec_change) {
    MS_RETURN_NOT_OK(job.ledger->Record(EntryType::kSpecAccept, *job.spec_change));
  }
  return job.more_plan ? job.ledger->AppendPlan(*job.more_plan) : Status::OK();
}

// A driver's work, from the first entry of its journal on.
Result<JobReport> RunBegun(
    Storage& storage,
    PreparedJob& job,
    const Parts& parts,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  MS_RETURN_NOT_OK(RecordChanges(job));
  job.blamed = std::make_unique<BlamedRows>(job.ledger->history().entries);
  JobReport report;
  report.output = job.ledger->layout().output;
  const std::vector<Split> open = OpenSplits(job, parts, &report.rows_before);
  MS_ASSIGN_OR_RETURN(const auto success, job.ledger->Success());
  MS_ASSIGN_OR_RETURN(const bool stands, job.ledger->OutputStands());
  MS_RETURN_NOT_OK(job.ledger->CheckOutput());
  // The manifest may be of before an interrupted retry.
  report.had_nothing_to_do =
      success.has_value() && open.empty() && stands && job.ledger->success_is_current();
  report.rows = report.rows_before;
  const bool may_have_logs = !report.had_nothing_to_do && !job.models.empty();
  std::int64_t rows_in_logs = 0;
  if (may_have_logs) {
    MS_ASSIGN_OR_RETURN(rows_in_logs, RowsInLogs(*job.ledger, open, say));
  }
  if (job.resumed) {
    say(fmt::format(
        "{}: {} of {} rows done{}",
        report.had_nothing_to_do ? "nothing to do" : "resuming",
        report.rows_before.total(),
        RowsOf(job.plan.splits),
        may_have_logs ? fmt::format(", {} in the row log", rows_in_logs) : ""
    ));
  }
  if (!report.had_nothing_to_do) {
    MS_ASSIGN_OR_RETURN(
        const auto guard, DiskGuard::Start(storage, DiskGuardOptionsOf(job, options, monitor), say)
    );
    JobOptions guarded = options;
    guarded.drain = guard->drain();
    const Driver driver{storage, job, guarded, *guard, monitor, say};
    const Status status = RunOpenSplits(driver, open, report.rows_before, stop);
    if (IsEngineBroken(status)) {
      MS_RETURN_NOT_OK(job.ledger->Record(EntryType::kBreaker, {{"why", status.message()}}));
    }
    if (!status.ok() && !status.IsCancelled()) return status;
    report.rows = monitor.progress().rows;
    report.errors = monitor.errors();
    report.tokens = monitor.progress().tokens;
    report.cut_answers = monitor.cut_answers;
    if (status.IsCancelled()) {
      report.exit = ExitCode::kStopped;
      if (guard->is_short()) {
        report.why_stopped = guard->Describe();
        MS_RETURN_NOT_OK(RecordStop(*job.ledger, guard->free_bytes(), report.why_stopped));
        return report;
      }
      MS_RETURN_NOT_OK(job.ledger->Record(
          EntryType::kDrain, {{"rows", report.rows.total()}, {"of", RowsOf(job.plan.splits)}}
      ));
      return report;
    }
    report.rows = job.ledger->counts();  // a part of another driver may hold other outcomes
    MS_RETURN_NOT_OK(job.ledger->WriteSuccess(Manifest(job, report.rows)));
  }
  report.exit =
      TooManyErrors(job.spec, report.rows) ? ExitCode::kTooManyErrors : ExitCode::kComplete;
  return report;
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
  MS_ASSIGN_OR_RETURN(PreparedJob job, PrepareJob(storage, options, PrepareFor::kRun, say, stop));
  if (!job.ledger) MS_RETURN_NOT_OK(CreateLedger(storage, job, options));
  const auto parts = job.ledger->Begin(ThisDriver());
  Result<JobReport> report =
      parts.ok() ? RunBegun(storage, job, *parts, options, monitor, say, stop) : parts.status();
  if (!report.ok()) return EndOfDriver(storage, *job.ledger, report.status());
  report->seconds = SecondsSince(start);
  return report;
}

Result<Preview> RunInMemory(
    const PreparedJob& job,
    const std::vector<Split>& splits,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  Preview preview;
  preview.schema = job.plan.output;
  preview.rows_in_input = job.plan.snapshot.num_rows;
  MS_ASSIGN_OR_RETURN(JobEngines engines, StartEngines(job, options.make_engine, say, stop));
  monitor.Start(RowsOf(splits), {}, Views(engines));
  std::map<std::int64_t, FinishedSplit> done;
  Mutex mutex;
  AssemblerOptions assembler_options = AssemblerOptionsOf(job);
  assembler_options.keep_skipped = true;
  Assembler assembler(assembler_options, [&](FinishedSplit split) {
    MutexLock lock(mutex);
    done[split.split] = std::move(split);
    return Status::OK();
  });
  const auto start = Clock::now();
  FixedWork work(splits);
  MS_RETURN_NOT_OK(RunWork(job, work, options, engines, monitor, assembler, nullptr, nullptr, stop)
  );
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
      const PreparedJob job, PrepareJob(storage, options, PrepareFor::kPreview, say, stop)
  );
  Result<Preview> preview = RunInMemory(job, job.plan.splits, options, monitor, say, stop);
  SayIgnored(job.bound, say);
  return preview;
}

ExitCode ExitCodeOf(const Status& status) {
  if (status.IsCancelled() || IsDiskTrouble(status)) return ExitCode::kStopped;
  if (IsEngineBroken(status)) return ExitCode::kEngineBroken;
  return IsConflict(status) ? ExitCode::kConflict : ExitCode::kWrong;
}

Status FailureOf(ExitCode exit, std::string message) {
  switch (exit) {
    case ExitCode::kEngineBroken:
      return EngineBroken(std::move(message));
    case ExitCode::kConflict:
      return Conflict(std::move(message));
    case ExitCode::kStopped:  // its disk, say: that may go away, and nobody asked for a stop
      return Status(
          arrow::StatusCode::IOError,
          std::move(message),
          arrow::internal::StatusDetailFromErrno(EIO)
      );
    default:
      return Status::IOError(std::move(message));
  }
}

}  // namespace millstream
