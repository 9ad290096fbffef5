// SPDX-License-Identifier: Apache-2.0
// Stops a run before the disk under its output is full, and keeps room for its end.
//
// While it lives there is a ballast: a file of min(64 MiB, 5 % of the file system) that nobody
// needs. Once less is free than twice the bytes in flight and as much as the ballast, no more rows
// are to be begun. The ballast goes at the run's end, which then finds room for what is finished
// and for its last entry in the journal.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "base/mutex.h"
#include "base/status.h"
#include "base/task_scope.h"
#include "storage/storage.h"

namespace millstream {

struct DiskGuardOptions {
  std::string output;   // for messages
  std::string folder;   // on the disk that is watched
  std::string ballast;  // its file
  /// Bytes of the rows of open splits, from reading to part (pipeline/in_flight.h): what may have
  /// to be written yet. Twice, as an answer is written to the row log and then to its part.
  const std::atomic<std::int64_t>* bytes_in_flight = nullptr;
  std::stop_token drain;                     // of the run
  std::chrono::milliseconds interval{1000};  // between two looks
};

/// Thread-safe. Does nothing where space has no end, or none that is told.
class DiskGuard {
 public:
  /// Says what is risky about the disk, makes the ballast, looks, and goes on looking on a thread
  /// of its own. `storage` must outlive it.
  static Result<std::unique_ptr<DiskGuard>> Start(
      Storage& storage, DiskGuardOptions options, const std::function<void(const std::string&)>& say
  );
  ~DiskGuard();
  DiskGuard(const DiskGuard&) = delete;
  DiskGuard& operator=(const DiskGuard&) = delete;

  /// Requested once no more rows are to be begun: space is short, or the run is drained.
  std::stop_token drain() const { return drain_.get_token(); }
  /// Looks now.
  void Look();
  bool is_short() const;
  /// How much was free when it was short, and what to do.
  std::string Describe() const;
  std::uint64_t free_bytes() const;
  /// Removes the ballast. Idempotent.
  void Release();

 private:
  struct ForwardStop {
    std::stop_source stop;
    void operator()() const noexcept { std::stop_source(stop).request_stop(); }
  };

  DiskGuard(Storage& storage, DiskGuardOptions options, std::uint64_t ballast_bytes);
  Status Watch(std::stop_token stop);

  Storage& storage_;
  const DiskGuardOptions options_;
  const std::uint64_t ballast_bytes_;
  std::stop_source drain_;
  std::stop_callback<ForwardStop> forward_drain_;

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  bool is_short_ MS_GUARDED_BY(mutex_) = false;
  std::uint64_t free_bytes_ MS_GUARDED_BY(mutex_) = 0;  // when it was found short
  std::uint64_t needed_bytes_ MS_GUARDED_BY(mutex_) = 0;
  TaskScope thread_;  // last: joined before the rest goes
};

}  // namespace millstream
