// SPDX-License-Identifier: Apache-2.0
// Engine results of unfinished splits: the expensive things, kept one by one so that none is
// computed twice. Knows keys and bytes, not what they mean.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash128.h"
#include "base/mutex.h"
#include "base/status.h"
#include "ledger/record.h"
#include "storage/storage.h"

namespace millstream {

/// What is logged for one request.
enum class LogKind : std::uint8_t {
  kResult = 1,  // the whole answer
  kPrefix = 2,  // the beginning of one
};

struct LoggedResult {
  LogKind kind = LogKind::kResult;
  Hash128 request;  // of all that the result depends on
  std::string bytes;
};

/// What a split's log holds, by key, oldest first.
struct LoadedRows {
  std::unordered_map<std::string, std::vector<LoggedResult>> by_key;
  std::vector<std::string> damage;  // what was lost to it, in words
};

/// The row logs of a job, written by one driver or worker. Append and Sync may be called at the
/// same time from any threads.
class RowLog {
 public:
  /// `folder` is that of all splits' logs, `storage` must outlive it. No two writers of one epoch
  /// have the same number.
  RowLog(Storage& storage, std::string folder, std::uint32_t epoch, std::int64_t writer)
      : storage_(storage), folder_(std::move(folder)), epoch_(epoch), writer_(writer) {}

  /// Logs a result. It survives this process's death at once, a power cut after the next Sync. If a
  /// file fails, what it had not synced goes to a new one; only if that fails too does this.
  Status Append(
      std::int64_t split,
      LogKind kind,
      std::string_view key,
      const Hash128& request,
      std::string_view bytes
  );
  /// Makes durable what was appended before the call.
  Status Sync();
  /// The same for one split.
  Status Sync(std::int64_t split);
  /// Closes the split's file, if all in it is durable; what may still come goes to another.
  void Close(std::int64_t split);
  /// Removes the log of a split whose part is durable.
  Status Drop(std::int64_t split);

  /// Reads what all drivers logged of a split.
  static Result<LoadedRows> Load(Storage& storage, const std::string& folder, std::int64_t split);
  /// Makes what others logged of a split durable: they may have died before they did.
  static Status SyncFound(Storage& storage, const std::string& folder, std::int64_t split);
  /// The splits that have a log.
  static Result<std::vector<std::int64_t>> Splits(Storage& storage, const std::string& folder);

 private:
  struct Entry {
    std::uint8_t type;
    std::string payload;
    std::uint64_t end;  // of its record in the file
  };
  // A split's log; its file is another one after a failure.
  struct File {
    Mutex sync_mutex;  // one syncs at a time; taken before write_mutex
    Mutex write_mutex;
    std::shared_ptr<RecordWriter> writer MS_GUARDED_BY(write_mutex);
    std::vector<Entry> unsynced MS_GUARDED_BY(write_mutex);
    int number MS_GUARDED_BY(write_mutex) = 0;
  };
  Status Rewrite(std::int64_t split, File& file) MS_REQUIRES(file.write_mutex);
  Status SyncFile(std::int64_t split, File& file);
  std::string FolderOf(std::int64_t split) const;

  Storage& storage_;
  const std::string folder_;
  const std::uint32_t epoch_;
  const std::int64_t writer_;
  mutable Mutex mutex_;
  std::map<std::int64_t, std::shared_ptr<File>> open_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
