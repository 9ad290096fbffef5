// SPDX-License-Identifier: Apache-2.0
#include "job/worker.h"

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/task_scope.h"
#include "job/assembler.h"
#include "job/breaker.h"
#include "job/execute.h"
#include "job/held_leases.h"
#include "job/held_parts.h"
#include "job/results.h"
#include "job/worker_wire.h"

namespace millstream {
namespace {

// Of an only worker without an engine: enough that its readers take several at once. Of several
// each would take what others could have.
constexpr std::int64_t kSplitsAhead = 64;

// Loads what is known of a lease's rows before they are run.
class LoadingWork final : public WorkSource {
 public:
  LoadingWork(HeldLeases& held, JobResults* results) : held_(held), results_(results) {}
  Result<std::vector<Piece>> Next(int readers, std::stop_token stop) override {
    MS_ASSIGN_OR_RETURN(std::vector<Piece> pieces, held_.Next(readers, std::move(stop)));
    if (results_ == nullptr) return pieces;
    for (const Piece& piece : pieces) MS_RETURN_NOT_OK(results_->Load(piece.split.number));
    return pieces;
  }
  std::int64_t EndOf(std::int64_t piece) const override { return held_.EndOf(piece); }
  bool Begin(const RowRef& row) override { return held_.Begin(row); }

 private:
  HeldLeases& held_;
  JobResults* const results_;
};

// Notes what is finished; of whole splits rows go on to their parts.
class LeaseSink final : public RowSink {
 public:
  LeaseSink(HeldLeases& held, JobResults* results, Assembler& assembler)
      : held_(held), results_(results), assembler_(assembler) {}
  Status Finish(FinishedRows rows) override {
    held_.NoteFinished(rows.batch.rows);
    return assembler_.Finish(std::move(rows));
  }
  Status End(const Piece& piece) override {
    if (results_ != nullptr) results_->Forget(piece.split.number);
    if (!held_.NoteEnd(piece)) {
      assembler_.Drop(piece);
      return Status::OK();
    }
    MS_RETURN_NOT_OK(assembler_.End(piece));
    held_.NotePart(piece);
    return Status::OK();
  }

 private:
  HeldLeases& held_;
  JobResults* const results_;
  Assembler& assembler_;
};

class Worker {
 public:
  Worker(
      Storage& storage,
      const WorkerOptions& options,
      const Exchange& exchange,
      const DriversOwn* driver = nullptr
  )
      : storage_(storage),
        options_(options),
        exchange_(exchange),
        job_options_(options.job),
        engines_(driver != nullptr ? driver->engines : own_engines_),
        monitor_(driver != nullptr ? driver->monitor : own_monitor_),
        guard_(driver != nullptr ? &driver->guard : nullptr),
        job_(driver != nullptr ? &driver->job : nullptr) {}

  Status Run(const Say& say, std::stop_token stop) {
    Status ran = job_ == nullptr ? PrepareOwn(say, stop) : Status::OK();
    if (ran.ok()) ran = Begin();
    if (!ran.ok()) return Leave(ran);
    Status settled;
    const std::stop_callback forward(stop, [this] { work_.request_stop(); });
    TaskScope reports;  // to the end, else it is taken for dead while it settles
    reports.Spawn([&](std::stop_token token) {
      const Status reported = Report(token);
      if (!reported.ok() || is_over()) work_.request_stop();
      return reported;
    });
    TaskScope settling(stop);
    settling.Spawn([&](std::stop_token token) {
      settled = Settle(token);
      if (!settled.ok()) work_.request_stop();
      return Status::OK();  // its coordinator is to hear of it
    });
    ran = RunLeases(work_.get_token());
    settling.RequestStop();
    MS_RETURN_NOT_OK(settling.Join());
    if (settled.ok()) settled = SettleEnded(held_parts_->Ready());
    reports.RequestStop();
    MS_RETURN_NOT_OK(reports.Join());
    if (!settled.ok() && (ran.ok() || ran.IsCancelled())) ran = settled;
    if (is_over() && ran.IsCancelled()) ran = Status::OK();
    return Leave(ran);
  }

 private:
  Status PrepareOwn(const Say& say, std::stop_token stop) {
    job_options_.accept_all = true;  // as its driver has
    job_options_.runner.threads = options_.threads;
    MS_ASSIGN_OR_RETURN(
        own_job_, PrepareJob(storage_, job_options_, PrepareFor::kWorker, say, stop)
    );
    if (!own_job_.ledger) return Status::Invalid(options_.job.file, ": the job is not begun");
    own_job_.ledger->Join(options_.epoch, options_.number);
    own_job_.engine_threads = options_.threads;
    own_job_.blamed = std::make_unique<BlamedRows>(own_job_.ledger->history().entries);
    job_ = &own_job_;
    MS_ASSIGN_OR_RETURN(own_engines_, StartEngines(own_job_, options_.make_engine, say, stop));
    own_monitor_.Start(0, {}, {});
    return Status::OK();
  }

  Status Begin() {
    MS_ASSIGN_OR_RETURN(format_, OutputFormatOf(job_->spec));
    MS_ASSIGN_OR_RETURN(results_, JobResults::Load(*job_->ledger, {}, job_->blamed.get()));
    breaker_ = std::make_unique<Breaker>(job_->spec, job_->plan.snapshot, job_->blamed.get());
    held_parts_ = std::make_unique<HeldParts>(*breaker_);
    HeldLeasesOptions leases;
    leases.divides = !job_->models.empty();
    leases.interval = options_.interval;
    leases.now = std::chrono::steady_clock::now;
    const bool is_only = !job_->ledger->is_worker();
    leases.room = [rows = is_only ? kSplitsAhead * job_->spec.split_rows : 0] { return rows; };
    if (const auto& step = job_->bound.segments.front().generate) {
      const auto engine = engines_.by_key.find(step->model_key());
      if (engine != engines_.by_key.end()) {  // else no rows are left
        leases.room = [engine = engine->second] { return engine->room().requests; };
      }
    }
    held_ = std::make_unique<HeldLeases>(job_->plan.splits, std::move(leases));
    return Status::OK();
  }

  // Tells what is held and done, and takes what is to be held, until nothing is left.
  Status Report(std::stop_token stop) {
    while (!stop.stop_requested()) {
      MS_RETURN_NOT_OK(ReportOnce(/*leaves=*/false, Status::OK()));
      if (is_over()) return Status::OK();
      held_->WaitForNews(stop);
    }
    return Status::OK();
  }

  Status ReportOnce(bool leaves, const Status& failure) {
    WorkerMessage message;
    message.epoch = options_.epoch;
    WorkerReport& report = message.report;
    report.worker = options_.number;
    report.number = ++num_reports_;
    report.leaves = leaves;
    message.rows = monitor_.progress().rows;
    report.rows_finished = message.rows.total();
    // First what is held: what is done is held until it is noted below.
    if (held_) held_->Fill(report);
    {
      MutexLock lock(mutex_);
      report.done = done_;
      for (const auto& [split, part] : published_) report.published.push_back(split);
      if (job_ != nullptr && job_->ledger->is_worker()) message.parts = published_;
      message.num_poison = num_poison_;
    }
    message.entries = job_ != nullptr ? job_->ledger->TakeEntries() : std::vector<JournalEntry>();
    message.errors = monitor_.errors();
    message.cut_answers = monitor_.cut_answers;
    for (const auto& engine : engines_.owned) message.stats += engine->stats();
    if (!failure.ok() && !failure.IsCancelled()) {
      message.failure = failure.message();
      message.exit = ExitCodeOf(failure);
    }
    MS_ASSIGN_OR_RETURN(const std::string bytes, exchange_(Encode(message)));
    MS_ASSIGN_OR_RETURN(const WorkerAnswer answer, DecodeWorkerAnswer(bytes));
    if (leaves) return Status::OK();
    // Before its rows come.
    for (const JournalEntry& entry : answer.poison) job_->blamed->Note(entry);
    if (held_) held_->Apply(report, answer.orders);
    if (held_ && answer.drains) held_->GiveBack();
    if (answer.stops) work_.request_stop();
    MutexLock lock(mutex_);
    Forget(message);
    num_poison_ += std::ssize(answer.poison);
    is_over_ = is_over_ || answer.orders.is_over;
    return Status::OK();
  }

  // What a report that was answered said need not be said again.
  void Forget(const WorkerMessage& sent) MS_REQUIRES(mutex_) {
    done_.erase(
        done_.begin(), done_.begin() + static_cast<std::ptrdiff_t>(sent.report.done.size())
    );
    for (const std::int64_t split : sent.report.published) published_.erase(split);
  }

  // Makes what is finished durable, on a thread that neither rows nor reports wait for.
  Status Settle(std::stop_token stop) {
    while (!stop.stop_requested()) {
      // No rows that may come will tell more of the model: all parts.
      const bool takes_all = held_->WaitForEnds(stop);
      MS_RETURN_NOT_OK(SettleEnded(takes_all ? held_parts_->All() : held_parts_->Ready()));
    }
    return Status::OK();
  }

  Status SettleEnded(const std::vector<FinishedPart>& parts) {
    const std::vector<Lease> leases = held_->Finished();
    std::set<std::int64_t> splits;
    for (const Lease& lease : leases) splits.insert(lease.range.split);
    for (const std::int64_t split : splits) {
      MS_RETURN_NOT_OK(job_->ledger->SyncRows(split));
      job_->ledger->rows().Close(split);  // what still comes gets another file
    }
    // Of a worker apart its driver journals it, and drops the row log.
    const bool is_apart = job_->ledger->is_worker();
    MS_ASSIGN_OR_RETURN(
        const auto stands,
        is_apart ? job_->ledger->Publish(parts) : job_->ledger->PublishParts(parts)
    );
    std::set<std::int64_t> published;
    for (const auto& [split, part] : stands) {
      published.insert(split);
      if (is_apart) job_->ledger->rows().Close(split);
    }
    {
      MutexLock lock(mutex_);
      for (const Lease& lease : leases) done_.push_back(lease.range);
      published_.insert(stands.begin(), stands.end());
    }
    held_->Drop(leases);
    held_->NotePublished(published);
    return Status::OK();
  }

  Status RunLeases(std::stop_token stop) {
    Assembler assembler(AssemblerOptionsOf(*job_), [&](const FinishedSplit& split) -> Status {
      MS_ASSIGN_OR_RETURN(
          FinishedPart part, WritePart(storage_, *job_->ledger, format_, job_->plan, split)
      );
      if (guard_ != nullptr) guard_->Look();
      held_parts_->Add(std::move(part), split.codes);
      return Status::OK();
    });
    JobResults* const results = job_->models.empty() ? nullptr : results_.get();
    LoadingWork work(*held_, results);
    LeaseSink sink(*held_, results, assembler);
    Status ran =
        RunWork(*job_, work, job_options_, engines_, monitor_, sink, results, breaker_.get(), stop);
    if (guard_ != nullptr && (guard_->is_short() || IsDiskFull(ran))) {
      guard_->Release();  // for what is finished
    }
    MS_RETURN_NOT_OK(results_->Finish());
    return ran;
  }

  // The last report: what is done, and why there is none after it.
  Status Leave(const Status& ran) {
    const Status told = ReportOnce(/*leaves=*/true, ran);
    return ran.ok() || (ran.IsCancelled() && !told.ok()) ? told : ran;
  }

  bool is_over() {
    MutexLock lock(mutex_);
    return is_over_;
  }

  Storage& storage_;
  const WorkerOptions& options_;
  const Exchange& exchange_;
  JobOptions job_options_;
  // Of one in a process of its own.
  PreparedJob own_job_;
  JobEngines own_engines_;
  JobMonitor own_monitor_;

  const JobEngines& engines_;
  JobMonitor& monitor_;
  DiskGuard* const guard_;
  PreparedJob* job_;  // null until it is prepared
  OutputFormat format_ = OutputFormat::kParquet;
  std::unique_ptr<JobResults> results_;
  std::unique_ptr<Breaker> breaker_;
  std::unique_ptr<HeldParts> held_parts_;
  std::unique_ptr<HeldLeases> held_;
  std::stop_source work_;  // ends without its coordinator too, and when nothing can be settled
  std::int64_t num_reports_ = 0;

  Mutex mutex_;
  std::vector<RowRange> done_ MS_GUARDED_BY(mutex_);
  std::map<std::int64_t, CommittedPart> published_ MS_GUARDED_BY(mutex_);
  std::int64_t num_poison_ MS_GUARDED_BY(mutex_) = 0;  // entries that it was told
  bool is_over_ MS_GUARDED_BY(mutex_) = false;
};

}  // namespace

Status RunWorker(
    Storage& storage,
    const WorkerOptions& options,
    const Exchange& exchange,
    const Say& say,
    std::stop_token stop
) {
  return Worker(storage, options, exchange).Run(say, std::move(stop));
}

Status RunOwnWorker(
    Storage& storage,
    const WorkerOptions& options,
    const DriversOwn& driver,
    const Exchange& exchange,
    std::stop_token stop
) {
  return Worker(storage, options, exchange, &driver).Run({}, std::move(stop));
}

}  // namespace millstream
