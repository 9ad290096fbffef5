// SPDX-License-Identifier: Apache-2.0
#include "job/worker.h"

#include <algorithm>
#include <condition_variable>
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
#include "job/held_parts.h"
#include "job/results.h"
#include "job/worker_wire.h"

namespace millstream {
namespace {

class Worker {
 public:
  Worker(Storage& storage, const WorkerOptions& options, const Exchange& exchange, const Say& say)
      : storage_(storage), options_(options), exchange_(exchange), say_(say) {}

  Status Run(std::stop_token stop) {
    Status ran = Prepare(stop);
    if (ran.ok()) {
      TaskScope reports(stop);
      std::stop_source work;  // ends without its coordinator as well
      const std::stop_callback forward(stop, [&work] { work.request_stop(); });
      reports.Spawn([this, &work](std::stop_token token) {
        const Status reported = Report(token);
        if (!reported.ok()) work.request_stop();
        return reported;
      });
      ran = WorkOn(work.get_token());
      reports.RequestStop();
      const Status reported = reports.Join();
      if (!reported.ok()) return reported;
    }
    return Leave(ran);
  }

 private:
  struct Held {
    RowRange range;
    bool is_run = false;  // all of it has been begun
  };

  Status Prepare(std::stop_token stop) {
    job_options_ = options_.job;
    job_options_.accept_all = true;  // as its driver has
    job_options_.runner.threads = options_.threads;
    job_options_.drain = drain_.get_token();
    MS_ASSIGN_OR_RETURN(job_, PrepareJob(storage_, job_options_, PrepareFor::kWorker, say_, stop));
    if (!job_.ledger) return Status::Invalid(options_.job.file, ": the job is not begun");
    job_.ledger->Join(options_.epoch, options_.number);
    job_.engine_threads = options_.threads;
    MS_ASSIGN_OR_RETURN(format_, OutputFormatOf(job_.spec));
    job_.blamed = std::make_unique<BlamedRows>(job_.ledger->history().entries);
    breaker_ = std::make_unique<Breaker>(job_.spec, job_.plan.snapshot, job_.blamed.get());
    held_parts_ = std::make_unique<HeldParts>(*breaker_);
    MS_ASSIGN_OR_RETURN(engines_, StartEngines(job_, options_.make_engine, say_, stop));
    monitor_.Start(0, {}, {});
    return Status::OK();
  }

  // Tells what is held and done, and takes what is to be held, until nothing is left.
  Status Report(std::stop_token stop) {
    while (!stop.stop_requested()) {
      MS_RETURN_NOT_OK(ReportOnce(/*leaves=*/false, Status::OK()));
      MutexLock lock(mutex_);
      if (is_over_) return Status::OK();
      changed_.wait_for(lock, stop, options_.interval, [this]() MS_REQUIRES(mutex_) {
        return has_news_;
      });
    }
    return Status::OK();
  }

  Status ReportOnce(bool leaves, const Status& failure) {
    WorkerMessage message;
    {
      MutexLock lock(mutex_);
      has_news_ = false;
      FillReport(message.report);
      message.parts = published_;
      message.num_poison = num_poison_;
    }
    message.report.leaves = leaves;
    message.entries = job_.ledger ? job_.ledger->TakeEntries() : std::vector<JournalEntry>();
    message.rows = monitor_.progress().rows;
    message.errors = monitor_.errors();
    message.cut_answers = monitor_.cut_answers;
    for (const auto& engine : engines_.owned) {
      const EngineStats stats = engine->stats();
      message.prompt_tokens += stats.prompt_tokens;
      message.completion_tokens += stats.completion_tokens;
      message.cost += stats.cost;
    }
    if (!failure.ok() && !failure.IsCancelled()) {
      message.failure = failure.message();
      message.exit = ExitCodeOf(failure);
    }
    MS_ASSIGN_OR_RETURN(const std::string bytes, exchange_(Encode(message)));
    MS_ASSIGN_OR_RETURN(const WorkerAnswer answer, DecodeWorkerAnswer(bytes));
    MutexLock lock(mutex_);
    Forget(message);
    Apply(answer);
    gets_nothing_ = message.report.wants_rows > 0 && answer.orders.take.empty();
    changed_.notify_all();
    return Status::OK();
  }

  void FillReport(WorkerReport& report) MS_REQUIRES(mutex_) {
    report.worker = options_.number;
    report.number = ++num_reports_;
    bool has_next = false;
    for (const auto& [number, held] : held_) {
      HeldLease& lease = report.held.emplace_back();
      lease.lease = {number, held.range};
      lease.begun = held.is_run ? held.range.end : held.range.begin;
      if (drains_ && !held.is_run) lease.lease.range.end = held.range.begin;
      has_next = has_next || !held.is_run;
    }
    report.done = done_;
    for (const auto& [split, part] : published_) report.published.push_back(split);
    report.rows_finished = monitor_.progress().rows.total();
    // Enough for now, and something to begin when that is done.
    if (!has_next && !drains_) report.wants_rows = held_.empty() ? job_.spec.split_rows : 1;
  }

  // What a report that was answered said need not be said again.
  void Forget(const WorkerMessage& sent) MS_REQUIRES(mutex_) {
    done_.erase(
        done_.begin(), done_.begin() + static_cast<std::ptrdiff_t>(sent.report.done.size())
    );
    for (const auto& [split, part] : sent.parts) published_.erase(split);
  }

  void Apply(const WorkerAnswer& answer) MS_REQUIRES(mutex_) {
    // Before the leases that come with them.
    for (const JournalEntry& entry : answer.poison) job_.blamed->Note(entry);
    num_poison_ += std::ssize(answer.poison);
    for (const Lease& lease : answer.orders.take)
      held_.try_emplace(lease.number, Held{lease.range});
    for (const Lease& lease : answer.orders.shorten) {
      const auto held = held_.find(lease.number);
      if (held != held_.end() && !held->second.is_run) held->second.range.end = lease.range.end;
    }
    for (const std::int64_t lease : answer.orders.end) {
      const auto held = held_.find(lease);
      if (held != held_.end() && !held->second.is_run) held_.erase(held);
    }
    is_over_ = is_over_ || answer.orders.is_over;
    drains_ = drains_ || answer.drains;
    if (drains_) drain_.request_stop();
  }

  Status WorkOn(std::stop_token stop) {
    while (true) {
      std::map<std::int64_t, RowRange> leases;
      {
        MutexLock lock(mutex_);
        changed_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
          return is_over_ || drains_ || HasNext() || (gets_nothing_ && !held_.empty());
        });
        if (stop.stop_requested()) return Status::Cancelled("stopped on request");
        if (is_over_ || drains_) return Status::OK();
        for (auto& [number, held] : held_) {
          if (!std::exchange(held.is_run, true)) leases[number] = held.range;
        }
      }
      if (leases.empty()) {  // no rows will tell more of the model
        MS_RETURN_NOT_OK(Publish(held_parts_->All()));
      } else {
        MS_RETURN_NOT_OK(RunLeases(leases, stop));
      }
    }
  }

  Status Publish(const std::vector<FinishedPart>& parts) {
    MS_ASSIGN_OR_RETURN(const auto stands, job_.ledger->Publish(parts));
    MutexLock lock(mutex_);
    published_.insert(stands.begin(), stands.end());
    std::erase_if(held_, [&](const auto& entry) {
      return stands.contains(entry.second.range.split);
    });
    gets_nothing_ = false;
    has_news_ = true;
    changed_.notify_all();
    return Status::OK();
  }

  bool HasNext() const MS_REQUIRES(mutex_) {
    return std::any_of(held_.begin(), held_.end(), [](const auto& entry) {
      return !entry.second.is_run;
    });
  }

  Status RunLeases(const std::map<std::int64_t, RowRange>& leases, std::stop_token stop) {
    ChosenRows chosen;
    std::set<std::int64_t> whole;
    std::vector<Split> splits;
    std::vector<std::int64_t> numbers;
    for (const auto& [number, range] : leases) {
      const Split& split = job_.plan.splits[static_cast<std::size_t>(range.split)];
      std::vector<bool>& rows = chosen[range.split];
      rows.resize(static_cast<std::size_t>(split.num_rows));
      std::fill(rows.begin() + range.begin, rows.begin() + range.end, true);
      if (range.size() == split.num_rows) whole.insert(range.split);
      if (std::find(numbers.begin(), numbers.end(), range.split) != numbers.end()) continue;
      numbers.push_back(range.split);
      splits.push_back(split);
    }
    std::unique_ptr<JobResults> results;
    if (!job_.models.empty()) {
      MS_ASSIGN_OR_RETURN(results, JobResults::Load(*job_.ledger, numbers, job_.blamed.get()));
    }
    AssemblerOptions options = AssemblerOptionsOf(job_);
    options.chosen = &chosen;
    Assembler assembler(options, splits, [&](const FinishedSplit& split) -> Status {
      if (!whole.contains(split.split)) return Status::OK();
      MS_ASSIGN_OR_RETURN(
          FinishedPart part, WritePart(storage_, *job_.ledger, format_, job_.plan, split)
      );
      held_parts_->Add(std::move(part), split.codes);
      return Publish(held_parts_->Ready());
    });
    const Status ran = RunSplits(
        job_,
        splits,
        job_options_,
        engines_,
        monitor_,
        assembler,
        results.get(),
        breaker_.get(),
        &chosen,
        stop
    );
    if (results) MS_RETURN_NOT_OK(results->Finish());
    MS_RETURN_NOT_OK(ran);
    MutexLock lock(mutex_);
    for (const auto& [number, range] : leases) {
      if (whole.contains(range.split)) continue;  // held until its part stands
      done_.push_back(range);
      held_.erase(number);
    }
    has_news_ = true;
    changed_.notify_all();
    return Status::OK();
  }

  // The last report: what is done, and why there is none after it.
  Status Leave(const Status& ran) {
    const Status told = ReportOnce(/*leaves=*/true, ran);
    return ran.ok() ? told : ran;
  }

  Storage& storage_;
  const WorkerOptions& options_;
  const Exchange& exchange_;
  const Say& say_;
  JobOptions job_options_;
  PreparedJob job_;
  JobEngines engines_;
  JobMonitor monitor_;
  OutputFormat format_ = OutputFormat::kParquet;
  std::unique_ptr<Breaker> breaker_;
  std::unique_ptr<HeldParts> held_parts_;
  std::stop_source drain_;

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::int64_t, Held> held_ MS_GUARDED_BY(mutex_);  // by their numbers
  std::vector<RowRange> done_ MS_GUARDED_BY(mutex_);
  std::map<std::int64_t, CommittedPart> published_ MS_GUARDED_BY(mutex_);
  std::int64_t num_reports_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t num_poison_ MS_GUARDED_BY(mutex_) = 0;  // entries that it was told
  bool has_news_ MS_GUARDED_BY(mutex_) = false;
  bool gets_nothing_ MS_GUARDED_BY(mutex_) = false;  // though it wanted rows
  bool is_over_ MS_GUARDED_BY(mutex_) = false;
  bool drains_ MS_GUARDED_BY(mutex_) = false;
};

}  // namespace

Status RunWorker(
    Storage& storage,
    const WorkerOptions& options,
    const Exchange& exchange,
    const Say& say,
    std::stop_token stop
) {
  return Worker(storage, options, exchange, say).Run(std::move(stop));
}

}  // namespace millstream
