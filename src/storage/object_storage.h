// SPDX-License-Identifier: Apache-2.0
// Storage on an object store, where a file appears by one conditional PUT: there are no renames,
// nothing is appended to, and what a client did not hear the end of may still come about.
//
// Unpublished files are kept on this machine and never seen on the store. An appended file is a
// row of numbered objects below its name, one for each Sync(). A lock is an object that its holder
// writes again every few seconds.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "storage/object_store.h"
#include "storage/retrying_store.h"
#include "storage/storage.h"
#include "storage/store_clock.h"

namespace millstream {

struct ObjectStorageOptions {
  /// What every path begins with, and a key does not: "s3://bucket/".
  std::string root;
  std::shared_ptr<StoreClock> clock = MakeSystemClock();
  RetryPolicy retry;
  /// Once it is requested, a store that does not answer is not waited for.
  std::stop_token stop;
  /// An unpublished file beyond this size goes to a scratch file in the folder for temporary files.
  std::uint64_t memory_bytes_max = std::uint64_t{16} << 20;
  /// How many files of one PublishAll are sent at a time.
  int parallel = 8;
  std::chrono::milliseconds heartbeat{10'000};
  /// A lock that was not written for so long, by the store's own clock, may be taken over.
  std::chrono::milliseconds lock_stale{60'000};
  /// Find out, before the first change, whether the store honours conditions; refuse it if not.
  bool probe = true;
};

/// The storage on a store; it sends failed requests of `store` again by itself.
std::unique_ptr<Storage> MakeObjectStorage(
    std::shared_ptr<ObjectStore> store, ObjectStorageOptions options
);

}  // namespace millstream
