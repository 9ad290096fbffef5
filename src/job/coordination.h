// SPDX-License-Identifier: Apache-2.0
// The driver of a job: hears its workers, writes down in the ledger what they
// did, and shows it. Whoever starts workers and carries messages (job/local_workers.h) uses it.

#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "job/coordinator.h"
#include "job/job.h"
#include "job/worker_wire.h"
#include "ledger/ledger.h"

namespace millstream {

/// For one thread.
class Coordination {
 public:
  using Time = Coordinator::Time;

  /// For a job that has begun, whose open splits are `splits`. All must outlive it. `silence`: of a
  /// worker that is to be taken for dead.
  Coordination(
      PreparedJob& job,
      const std::vector<Split>& splits,
      std::chrono::milliseconds silence,
      JobMonitor& monitor,
      const Say& say
  );

  /// Hears a worker's report, and returns its answer. Fails if the ledger does, or the job.
  Result<std::string> Hear(std::string_view report, Time now);
  /// A worker has died. `may_be_a_row`: for no reason that is known. `how`: "SIGSEGV", say;
  /// empty: it has ended well. A row that so many died of that no more should is written down, and
  /// fails. EngineBroken if workers die and die while nothing is done.
  Status Die(std::int64_t worker, bool may_be_a_row, std::string_view how);
  Status Expire(Time now);
  /// Shows what the workers have done so far.
  void Show();
  /// All workers are to finish what they have begun, and leave.
  void Drain() { drains_ = true; }
  /// One is, as its machine is about to go.
  void Drain(std::int64_t worker) { draining_.insert(worker); }
  /// All are to cut short what they have begun, make durable what it has, and leave.
  void Stop() { stops_ = true; }

  /// What a new life of a worker is to be told: the run's job as `options` have it, and a number
  /// that no driver of the job has given before. Computes with so many threads.
  WorkerOptions NewWorker(const JobOptions& options, int threads);
  bool is_over() const { return coordinator_.is_over(); }
  std::int64_t num_workers() const { return coordinator_.num_workers(); }

 private:
  Status Blame(const std::vector<RowRange>& rows, std::string_view how);
  Status RecordPoison(const nlohmann::ordered_json& body);
  void NoteProgress(WorkerMessage message);
  void EndLife(std::int64_t worker);

  const PreparedJob& job_;
  Ledger& ledger_;
  JobMonitor& monitor_;
  const Say& say_;
  Coordinator coordinator_;
  // What is shown. Of each worker's life its last message, and how many of its rows are in parts or
  // were said to be done; of lives that are over, the sums.
  struct Life {
    WorkerMessage last;
    std::int64_t rows_settled = 0;
  };
  std::map<std::int64_t, Life> lives_;
  std::set<std::int64_t> past_lives_;
  std::set<std::int64_t> begun_lives_;  // those that have not ended, heard or not
  WorkerMessage past_;
  std::map<std::int64_t, std::int64_t> rows_done_;  // by open split, of those lent in parts
  std::vector<JournalEntry> poison_;                // those of this driver's time
  int num_deaths_ = 0;                              // in a row, with nothing done since
  std::int64_t last_worker_;
  std::set<std::int64_t> draining_;
  bool drains_ = false, stops_ = false;
};

}  // namespace millstream
