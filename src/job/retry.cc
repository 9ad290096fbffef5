// SPDX-License-Identifier: Apache-2.0
#include "job/retry.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_nested.h"
#include "arrow/array/array_primitive.h"
#include "fmt/format.h"
#include "job/driver_end.h"
#include "job/execute.h"
#include "job/output.h"
#include "job/results.h"
#include "pipeline/expression_columns.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// What may be otherwise when it is tried once more.
bool MayPass(const std::string& code) {
  static const std::set<std::string> codes{
      "engine_failed",
      "crash",
      "hang",
      "oom",
      "out_of_kv_memory",
      "bad_logits",
      "fetch",
      "timeout",
      // A server may have been started anew with other settings.
      "bad_request",
      "prompt_too_long",
      "empty_choice"
  };
  return codes.contains(code);
}

// A row as it stands.
struct OldRow {
  std::int64_t place = 0;  // in its split
  RowStatus status = RowStatus::kOk;
};

struct OldRows {
  std::vector<OldRow> rows;
  std::shared_ptr<arrow::RecordBatch> columns;
};

RowStatus StatusNamed(std::string_view name) {
  return name == "ok"        ? RowStatus::kOk
         : name == "skipped" ? RowStatus::kSkipped
                             : RowStatus::kError;
}

std::int64_t& CountOf(RowCounts& counts, RowStatus status) {
  return status == RowStatus::kOk      ? counts.ok
         : status == RowStatus::kError ? counts.error
                                       : counts.skipped;
}

// The rows that stand for a split, its failed ones too, in order.
Result<OldRows> ReadOld(
    const StandingOutput& output, const Split& split, const CommittedPart& part
) {
  const OutputLayout& layout = output.ledger->layout();
  std::vector<std::string> paths{layout.PartPath(split.number)};
  if (part.errors) paths.push_back(layout.ErrorsPath(split.number, part.errors->hash));
  OldRows old;
  arrow::RecordBatchVector batches;
  for (const std::string& path : paths) {
    MS_RETURN_NOT_OK(ReadRows(output, split, path, [&](const auto& batch, const auto& places) {
      for (const PlacedRow& row : places) old.rows.push_back({row.index, StatusNamed(row.status)});
      batches.push_back(batch);
      return Status::OK();
    }));
  }
  if (batches.empty()) {
    MS_ASSIGN_OR_RETURN(old.columns, arrow::RecordBatch::MakeEmpty(output.plan.output));
  } else {
    MS_ASSIGN_OR_RETURN(old.columns, arrow::ConcatenateRecordBatches(batches));
  }
  return old;
}

// Chooses rows by an error code, an expression, or all that failed.
class Choice {
 public:
  static Result<Choice> Of(const std::string& where) {
    Choice choice;
    if (where.find("{{") == std::string::npos) {
      choice.code_ = where;
      return choice;
    }
    auto compiled = Expression::Compile(where, Expression::Mode::kValue, {});
    if (!compiled.ok()) {
      return compiled.status().WithMessage("--where: ", compiled.status().message());
    }
    choice.expression_ = *std::move(compiled);
    return choice;
  }

  // Which of the rows, by their number in `old`.
  Result<std::vector<std::int64_t>> Choose(const OldRows& old) const {
    std::vector<std::int64_t> chosen;
    Values values;
    if (expression_) {
      MS_ASSIGN_OR_RETURN(values, EvaluateOver(*expression_, *old.columns));
    }
    for (std::size_t row = 0; row < old.rows.size(); ++row) {
      const auto at = static_cast<std::int64_t>(row);
      bool is_chosen = false;
      if (expression_) {
        // A column that is null in this row, say, makes it one that does not match.
        is_chosen = values.kinds[row] == Values::Kind::kBool && values.numbers[row] != 0;
      } else if (old.rows[row].status == RowStatus::kError) {
        is_chosen = code_.empty() || CodeOf(*old.columns, at) == code_;
      }
      if (is_chosen && old.rows[row].status != RowStatus::kSkipped) chosen.push_back(at);
    }
    return chosen;
  }

  static std::string CodeOf(const arrow::RecordBatch& columns, std::int64_t row) {
    const auto& error =
        static_cast<const arrow::StructArray&>(*columns.column(columns.num_columns() - 2));
    if (error.IsNull(row)) return "ok";
    return static_cast<const arrow::StringArray&>(*error.field(1)).GetString(row);
  }

 private:
  std::string code_;
  std::shared_ptr<const Expression> expression_;
};

std::int32_t VersionOf(const arrow::RecordBatch& columns, std::int64_t row) {
  const auto& source =
      static_cast<const arrow::StructArray&>(*columns.column(columns.num_columns() - 1));
  return static_cast<const arrow::Int32Array&>(*source.field(2)).Value(row);
}

// The job file that the rows were made by, with what is mended of it.
Result<JobOptions> OptionsOf(const Ledger& ledger, const RetryOptions& retry) {
  JobOptions options;
  if (retry.file.empty()) {
    MS_ASSIGN_OR_RETURN(options, StandingOptions(ledger));
  } else {
    options.file = retry.file;
    options.overrides.output = ledger.layout().output;
  }
  options.accept_all = true;
  options.runner = retry.runner;
  options.drain = retry.drain;
  options.make_engine = retry.make_engine;
  for (const auto& pair : retry.vars) options.overrides.vars.push_back(pair);
  for (const auto& pair : retry.sets) options.overrides.sets.push_back(pair);
  if (retry.reseed) {
    options.overrides.sets.emplace_back("seed", std::to_string(std::random_device()()));
  }
  return options;
}

class Retry {
 public:
  Retry(
      Storage& storage,
      const RetryOptions& options,
      JobMonitor& monitor,
      const Say& say,
      std::stop_token stop
  )
      : storage_(storage),
        options_(options),
        monitor_(monitor),
        say_(say),
        stop_(std::move(stop)) {}

  Result<RetryReport> Run() {
    MS_ASSIGN_OR_RETURN(const StandingOutput seen, OpenOutput(storage_, options_.output));
    report_.output = seen.ledger->layout().output;
    MS_ASSIGN_OR_RETURN(job_options_, OptionsOf(*seen.ledger, options_));
    MS_ASSIGN_OR_RETURN(job_, PrepareJob(storage_, job_options_, PrepareFor::kRun, say_, stop_));
    MS_ASSIGN_OR_RETURN(output_, OpenOutput(storage_, options_.output));  // under the lock
    MS_ASSIGN_OR_RETURN(parts_, output_.ledger->Parts());
    for (const auto& [split, part] : parts_) report_.rows += part.counts;
    if (parts_.size() < output_.plan.splits.size()) {
      return Status::Invalid(report_.output, " is not complete: run its job file to the end first");
    }
    MS_RETURN_NOT_OK(Choose());
    if (report_.chosen == 0) report_.nothing = "no row is chosen";
    if (report_.nothing.empty() && !CouldChange()) {
      report_.nothing =
          "nothing changed that could change these rows: mend the job file, or add --set "
          "PATH=VALUE, or --reseed for other random draws";
    }
    if (options_.dry_run) return report_;
    // What a retry that was interrupted had left to do is done also if no row is.
    if (!report_.nothing.empty() && job_.ledger->success_is_current()) return report_;
    const auto begun = job_.ledger->Begin(ThisDriver(), Work::kRetry);
    Result<RetryReport> report = begun.ok() ? RunBegun(*begun) : begun.status();
    guard_.reset();
    if (!report.ok()) return EndOfDriver(storage_, *job_.ledger, report.status());
    return report;
  }

 private:
  // A driver's work, from the first entry of its journal on.
  Result<RetryReport> RunBegun(const std::map<std::int64_t, CommittedPart>& parts) {
    const bool are_as_chosen = std::equal(
        parts.begin(),
        parts.end(),
        parts_.begin(),
        parts_.end(),
        [](const auto& a, const auto& b) { return IsSame(a.second, b.second); }
    );
    if (!are_as_chosen) {
      return Status::Cancelled("another run has replaced parts just now: run this again");
    }
    MS_RETURN_NOT_OK(job_.ledger->CheckOutput());
    if (!report_.nothing.empty()) return Finish();
    if (job_.spec_change) {
      MS_RETURN_NOT_OK(job_.ledger->Record(EntryType::kSpecAccept, *job_.spec_change));
    }
    MS_ASSIGN_OR_RETURN(
        guard_, DiskGuard::Start(storage_, DiskGuardOptionsOf(job_, job_options_, monitor_), say_)
    );
    job_options_.drain = guard_->drain();
    const Status ran = RunChosen();
    if (guard_->is_short() || !ran.ok()) guard_->Release();  // for what is finished
    report_.errors = monitor_.errors();
    if (ran.IsCancelled()) {
      report_.exit = ExitCode::kStopped;
      if (guard_->is_short()) {
        say_(guard_->Describe());
        MS_RETURN_NOT_OK(RecordStop(*job_.ledger, guard_->free_bytes(), guard_->Describe()));
        return report_;
      }
      MS_RETURN_NOT_OK(job_.ledger->Record(EntryType::kDrain, Json::object()));
      return report_;
    }
    MS_RETURN_NOT_OK(ran);
    return Finish();
  }

  Status Choose() {
    MS_ASSIGN_OR_RETURN(const Choice choice, Choice::Of(options_.where));
    for (const Split& split : output_.plan.splits) {
      const CommittedPart& part = parts_.at(split.number);
      if (part.counts.total() == part.counts.skipped) continue;
      MS_ASSIGN_OR_RETURN(const OldRows old, ReadOld(output_, split, part));
      MS_ASSIGN_OR_RETURN(const std::vector<std::int64_t> rows, choice.Choose(old));
      if (rows.empty()) continue;
      std::vector<bool>& chosen = chosen_[split.number];
      chosen.resize(static_cast<std::size_t>(split.num_rows));
      for (const std::int64_t row : rows) {
        chosen[static_cast<std::size_t>(old.rows[static_cast<std::size_t>(row)].place)] = true;
        const std::string code = Choice::CodeOf(*old.columns, row);
        ++report_.codes[code];
        if (MayPass(code) || VersionOf(*old.columns, row) < job_.spec_version) could_change_ = true;
      }
      report_.chosen += static_cast<std::int64_t>(rows.size());
      splits_.push_back(split);
    }
    return Status::OK();
  }

  // Whether another answer is possible: the spec is another than that of a chosen row, or its error
  // was of the moment.
  bool CouldChange() const { return could_change_; }

  Status RunChosen() {
    std::vector<std::int64_t> numbers;
    numbers.reserve(splits_.size());
    for (const Split& split : splits_) numbers.push_back(split.number);
    std::unique_ptr<JobResults> results;
    if (!job_.models.empty()) {
      MS_ASSIGN_OR_RETURN(results, JobResults::Load(*job_.ledger, numbers, job_.blamed.get()));
    }
    MS_ASSIGN_OR_RETURN(
        const JobEngines engines, StartEngines(job_, options_.make_engine, say_, stop_)
    );
    monitor_.Start(report_.chosen, {}, Views(engines));
    AssemblerOptions options = AssemblerOptionsOf(job_);
    options.keep_ok = options.keep_errors = options.keep_skipped = true;
    Assembler assembler(options, [&](const FinishedSplit& split) { return Replace(split); });
    FixedWork work(splits_, &chosen_);
    const Status ran = RunWork(
        job_,
        work,
        job_options_,
        engines,
        monitor_,
        assembler,
        results.get(),
        /*breaker=*/nullptr,
        stop_
    );
    SayIgnored(job_.bound, say_);
    if (results) MS_RETURN_NOT_OK(results->Finish());
    return ran;
  }

  // Called from several threads, for a split each.
  Status Replace(const FinishedSplit& fresh) {
    const Split& split = output_.plan.splits[static_cast<std::size_t>(fresh.split)];
    const CommittedPart& part = parts_.at(fresh.split);
    MS_ASSIGN_OR_RETURN(const OldRows old, ReadOld(output_, split, part));
    FinishedSplit merged;
    std::int64_t gained = 0;
    MS_RETURN_NOT_OK(Merge(split, part, old, fresh, merged, gained));
    if (gained == 0) return Status::OK();
    MS_ASSIGN_OR_RETURN(
        FinishedPart finished,
        WritePart(storage_, *job_.ledger, output_.format, output_.plan, merged)
    );
    guard_->Look();
    MutexLock lock(mutex_);  // one replacement at a time
    MS_RETURN_NOT_OK(job_.ledger->ReplaceParts({std::move(finished)}));
    report_.gained += gained;
    ++report_.parts_replaced;
    report_.rows.ok += merged.counts.ok - part.counts.ok;
    report_.rows.error += merged.counts.error - part.counts.error;
    report_.rows.skipped += merged.counts.skipped - part.counts.skipped;
    return Status::OK();
  }

  // The rows of a split after the retry: a row that did better in the place of the old one.
  Status Merge(
      const Split& split,
      const CommittedPart& part,
      const OldRows& old,
      const FinishedSplit& fresh,
      FinishedSplit& merged,
      std::int64_t& gained
  ) const {
    MS_ASSIGN_OR_RETURN(const auto intents, job_.ledger->Intents());
    merged.split = merged.piece = split.number;
    merged.counts = part.counts;
    const CommittedPart* const intent = FindIntent(intents, split.number, part);
    if (intent == nullptr) {
      return Conflict(
          output_.ledger->layout().PartPath(split.number) + ": the intent that names it is gone"
      );
    }
    merged.skipped_rows = intent->skipped_rows;
    MS_ASSIGN_OR_RETURN(const auto news, arrow::ConcatenateRecordBatches(fresh.batches));
    const auto& status =
        static_cast<const arrow::StringArray&>(*news->column(news->num_columns() - 3));
    std::map<std::int64_t, std::pair<std::int64_t, RowStatus>> rows;  // by place: row, status
    for (std::size_t row = 0; row < old.rows.size(); ++row) {
      rows[old.rows[row].place] = {static_cast<std::int64_t>(row), old.rows[row].status};
    }
    const auto num_old = static_cast<std::int64_t>(old.rows.size());
    for (std::size_t row = 0; row < fresh.places.size(); ++row) {
      const RowStatus now = StatusNamed(status.GetView(static_cast<std::int64_t>(row)));
      auto& [taken, before] = rows.at(fresh.places[row]);
      if (now == RowStatus::kError && before == RowStatus::kOk) continue;  // the answer stays
      if (now != RowStatus::kError) ++gained;
      --CountOf(merged.counts, before);
      ++CountOf(merged.counts, now);
      taken = num_old + static_cast<std::int64_t>(row);
      before = now;
      if (now == RowStatus::kSkipped) SetBit(merged.skipped_rows, fresh.places[row], split);
    }
    MS_ASSIGN_OR_RETURN(const auto all, arrow::ConcatenateRecordBatches({old.columns, news}));
    std::vector<std::int64_t> kept, failed;
    for (const auto& [place, row] : rows) {
      const RowStatus now = row.second;
      if (now == RowStatus::kOk      ? output_.keep_ok
          : now == RowStatus::kError ? output_.keep_errors
                                     : output_.keep_skipped) {
        kept.push_back(row.first);
      } else if (now == RowStatus::kError) {
        failed.push_back(row.first);
      }
    }
    MS_ASSIGN_OR_RETURN(merged.batches.emplace_back(), TakeColumns(all, kept));
    if (!failed.empty()) {
      MS_ASSIGN_OR_RETURN(merged.errors.emplace_back(), TakeColumns(all, failed));
    }
    return Status::OK();
  }

  static void SetBit(std::string& bits, std::int64_t at, const Split& split) {
    bits.resize(static_cast<std::size_t>(split.num_rows + 7) / 8);
    char& byte = bits[static_cast<std::size_t>(at / 8)];
    byte = static_cast<char>(byte | 1 << at % 8);
  }

  Result<RetryReport> Finish() {
    const Ledger& ledger = *job_.ledger;
    if (report_.parts_replaced > 0 || !ledger.success_is_current()) {
      if (ledger.layout().is_single_file) {
        MS_RETURN_NOT_OK(WriteSingleFile(storage_, *job_.ledger, output_.format, output_.plan));
      }
      MS_RETURN_NOT_OK(job_.ledger->WriteSuccess(Manifest(job_, report_.rows)));
    }
    MS_RETURN_NOT_OK(job_.ledger->EndRetry());
    if (TooManyErrors(job_.spec, report_.rows)) report_.exit = ExitCode::kTooManyErrors;
    return report_;
  }

  Storage& storage_;
  const RetryOptions& options_;
  JobMonitor& monitor_;
  const Say& say_;
  const std::stop_token stop_;

  JobOptions job_options_;
  PreparedJob job_;
  StandingOutput output_;
  std::map<std::int64_t, CommittedPart> parts_;
  std::vector<Split> splits_;  // those with chosen rows
  ChosenRows chosen_;
  bool could_change_ = false;
  std::unique_ptr<DiskGuard> guard_;

  Mutex mutex_;
  RetryReport report_;
};

}  // namespace

Result<RetryReport> RetryRows(
    Storage& storage,
    const RetryOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  return Retry(storage, options, monitor, say, std::move(stop)).Run();
}

Status PruneOutput(Storage& storage, const std::string& path) {
  MS_ASSIGN_OR_RETURN(const StandingOutput seen, OpenOutput(storage, path));
  MS_ASSIGN_OR_RETURN(const auto lock, LockOutput(storage, seen.ledger->layout(), {}));
  MS_ASSIGN_OR_RETURN(const StandingOutput output, OpenOutput(storage, path));
  const Status pruned = output.ledger->Prune(ThisDriver());
  return pruned.ok() ? pruned : EndOfDriver(storage, *output.ledger, pruned);
}

}  // namespace millstream
