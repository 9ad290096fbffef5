// SPDX-License-Identifier: Apache-2.0
#include "job/coordination.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace millstream {
namespace {

// How often a worker reports within the silence of one that is taken for dead.
constexpr int kReportsOfSilence = 15;
// That a driver can number.
constexpr std::int64_t kWorkersOfAnEpoch = 1'000'000;

// So many workers that die one after the other, while no row is finished, will not do better.
// A row is found in a split of 4,096 by eight deaths.
constexpr int kDeathsMax = 30;

CoordinatorOptions OptionsOf(const PreparedJob& job, std::chrono::milliseconds silence) {
  CoordinatorOptions options;
  options.silence_limit = silence;
  options.epoch = job.ledger->epoch();
  options.divides = !job.models.empty();  // else nothing is kept by the row
  return options;
}

std::vector<std::pair<std::int64_t, std::int64_t>> Sizes(const std::vector<Split>& splits) {
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes;
  sizes.reserve(splits.size());
  for (const Split& split : splits) sizes.emplace_back(split.number, split.num_rows);
  return sizes;
}

// Adds what a worker's life came to.
void Sum(const WorkerMessage& life, WorkerMessage& sum) {
  sum.stats += life.stats;
  sum.cut_answers += life.cut_answers;
  for (const auto& [code, sample] : life.errors) {
    JobMonitor::ErrorSample& of_all = sum.errors[code];
    of_all.count += sample.count;
    if (of_all.example.empty()) of_all.example = sample.example;
  }
}

}  // namespace

Coordination::Coordination(
    PreparedJob& job,
    const std::vector<Split>& splits,
    std::chrono::milliseconds silence,
    JobMonitor& monitor,
    const Say& say
)
    : job_(job),
      ledger_(*job.ledger),
      monitor_(monitor),
      say_(say),
      coordinator_(OptionsOf(job, silence), Sizes(splits)),
      last_worker_(ledger_.epoch() * kWorkersOfAnEpoch) {
  for (const Split& split : splits) rows_done_[split.number] = 0;
}

WorkerOptions Coordination::NewWorker(const JobOptions& options, int threads) {
  WorkerOptions worker;
  worker.job.file = job_.spec.file;
  worker.job.text = job_.spec.text;
  worker.job.overrides = options.overrides;
  worker.epoch = ledger_.epoch();
  worker.number = ++last_worker_;
  begun_lives_.insert(worker.number);
  worker.threads = threads;
  worker.interval = options.worker_silence / kReportsOfSilence;
  return worker;
}

Result<std::string> Coordination::Hear(std::string_view report, Time now) {
  MS_ASSIGN_OR_RETURN(WorkerMessage message, DecodeWorkerMessage(report));
  for (const JournalEntry& entry : message.entries) {
    MS_RETURN_NOT_OK(
        entry.type == EntryType::kPoison ? RecordPoison(entry.body)
                                         : ledger_.Record(entry.type, entry.body)
    );
  }
  // Before the coordinator knows: what it takes for done is in the journal.
  MS_RETURN_NOT_OK(ledger_.NotePublished(message.parts));
  // One that works for a driver before this: what it has done counts, and it is to begin anew, with
  // this one's epoch. What has failed may have failed because this one took over.
  const bool is_of_another = message.epoch != ledger_.epoch();
  if (is_of_another) message.report.leaves = true;
  if (!is_of_another && !message.failure.empty()) {
    return FailureOf(message.exit, message.failure);
  }
  WorkerAnswer answer;
  answer.stops = stops_ || is_of_another;
  answer.drains = answer.stops || drains_ || draining_.contains(message.report.worker);
  if (answer.drains) coordinator_.Drain(message.report.worker);
  const std::int64_t known_before = coordinator_.num_news();
  coordinator_.Expect(std::ssize(begun_lives_));
  answer.orders = coordinator_.Hear(message.report, now);
  if (coordinator_.num_news() > known_before) num_deaths_ = 0;
  const std::int64_t known = std::clamp<std::int64_t>(message.num_poison, 0, std::ssize(poison_));
  answer.poison.assign(poison_.begin() + known, poison_.end());
  NoteProgress(std::move(message));
  return Encode(answer);
}

void Coordination::NoteProgress(WorkerMessage message) {
  const WorkerReport& report = message.report;
  if (past_lives_.contains(report.worker)) return;
  Life& life = lives_[report.worker];
  if (report.number <= life.last.report.number) return;  // it came twice
  for (const RowRange& range : report.done) {
    const auto split = rows_done_.find(range.split);
    if (split != rows_done_.end()) split->second += range.size();
    life.rows_settled += range.size();
  }
  for (const auto& [split, part] : message.parts) {
    rows_done_.erase(split);
    life.rows_settled += part.counts.total();
  }
  const std::int64_t worker = report.worker;
  const bool leaves = report.leaves;
  life.last = std::move(message);
  if (leaves) EndLife(worker);
}

void Coordination::EndLife(std::int64_t worker) {
  const auto life = lives_.extract(worker);
  if (life) Sum(life.mapped().last, past_);
  past_lives_.insert(worker);
  begun_lives_.erase(worker);
}

Status Coordination::Die(std::int64_t worker, bool may_be_a_row, std::string_view how) {
  const bool has_left = past_lives_.contains(worker);  // as one of a driver before has
  if (!how.empty() && !has_left && ++num_deaths_ >= kDeathsMax) {
    return EngineBroken(fmt::format(
        "stopped: {} workers in a row died (the last: {}) and no row was finished. Mend that and "
        "run the same command again, which goes on from here; `millstream retry` tries rows that "
        "were blamed",
        num_deaths_,
        how
    ));
  }
  EndLife(worker);
  return Blame(coordinator_.Die(worker, may_be_a_row), how);
}

Status Coordination::Expire(Time now) {
  return Blame(coordinator_.Expire(now), "silence, for too long");
}

// In the journal first: a worker that is lent the row again, now or by a later driver, knows.
Status Coordination::Blame(const std::vector<RowRange>& rows, std::string_view how) {
  for (const RowRange& range : rows) {
    const Split& split = job_.plan.splits[static_cast<std::size_t>(range.split)];
    const RowId row = RowAt(split, range.begin);
    MS_RETURN_NOT_OK(RecordPoison(PoisonOf(row, how)));
    coordinator_.NoteFailed(range);
    say_(fmt::format(
        "{}:{} fails with the code crash: {} workers died with this row alone (the last: {}). No "
        "run tries it again; `millstream retry` does, once it may pass",
        job_.plan.snapshot.files[static_cast<std::size_t>(row.file)].name,
        row.record,
        coordinator_.deaths_max(),
        how
    ));
  }
  return Status::OK();
}

Status Coordination::RecordPoison(const nlohmann::ordered_json& body) {
  MS_RETURN_NOT_OK(ledger_.Record(EntryType::kPoison, body));
  poison_.push_back({EntryType::kPoison, ledger_.epoch(), body});
  return Status::OK();
}

void Coordination::Show() {
  JobMonitor::Progress progress = monitor_.progress();
  progress.rows = ledger_.counts();
  std::int64_t in_hand = 0;
  for (const auto& [split, rows] : rows_done_) in_hand += rows;
  WorkerMessage sum = past_;
  for (const auto& [worker, life] : lives_) {
    Sum(life.last, sum);
    in_hand += std::max<std::int64_t>(life.last.rows.total() - life.rows_settled, 0);
  }
  // Rows of a split that was lent in parts come by once more as its part is written.
  progress.rows_in_hand =
      std::clamp<std::int64_t>(in_hand, 0, progress.rows_total - progress.rows.total());
  progress.tokens = sum.stats;
  monitor_.cut_answers = sum.cut_answers;
  monitor_.Show(progress, std::move(sum.errors));
}

}  // namespace millstream
