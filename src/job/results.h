// SPDX-License-Identifier: Apache-2.0
// Engine results in the ledger's row log: what earlier drivers left there is found, what this one
// gets is kept, and made durable in groups on a thread of its own.

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/task_scope.h"
#include "job/blamed_rows.h"
#include "ledger/ledger.h"
#include "pipeline/result_store.h"

namespace millstream {

/// How many rows a log has something of.
std::int64_t RowsIn(const LoadedRows& rows);

/// How much of a row log may be not yet durable.
struct GroupLimits {
  std::chrono::milliseconds time;
  std::uint64_t bytes;
};

class JobResults final : public ResultStore {
 public:
  /// Loads what is logged of these splits. The ledger must have begun, or be a worker's; it and
  /// `blamed`, if not null, must outlive it: what is blamed there is not tried again.
  static Result<std::unique_ptr<JobResults>> Load(
      Ledger& ledger, const std::vector<std::int64_t>& splits, const BlamedRows* blamed
  );
  ~JobResults() override;
  /// Loads what is logged of one more split, or, as others may have logged more, of one again: then
  /// it is forgotten once Forget() was called as often.
  Status Load(std::int64_t split);

  KnownResult Find(const ResultKey& key) override;
  Status Keep(const ResultKey& key, const Completion& answer) override;
  Status KeepPrefix(const ResultKey& key, const std::vector<std::int32_t>& tokens) override;
  Status Blame(const ResultKey& key, const Completion& verdict) override;

  /// Forgets a split of which nothing more is asked.
  void Forget(std::int64_t split);
  /// Makes all durable and ends the thread. Returns the first failure of any sync.
  Status Finish();

 private:
  JobResults(Ledger& ledger, const BlamedRows* blamed);
  Status Log(const ResultKey& key, LogKind kind, const std::string& bytes);
  Status SyncInGroups(std::stop_token stop);

  Ledger& ledger_;
  const BlamedRows* const blamed_;
  const GroupLimits group_;

  struct Loaded {
    LoadedRows rows;
    int times = 0;
  };

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::int64_t, Loaded> loaded_ MS_GUARDED_BY(mutex_);
  std::uint64_t unsynced_bytes_ MS_GUARDED_BY(mutex_) = 0;
  Status failure_ MS_GUARDED_BY(mutex_) = Status::OK();
  TaskScope thread_;  // last: joined before the rest goes
};

}  // namespace millstream
