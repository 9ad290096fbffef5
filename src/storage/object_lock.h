// SPDX-License-Identifier: Apache-2.0
// A lock that is an object: its holder writes it again every few seconds, and one that was not
// written for long may be taken over.

#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "storage/object_store.h"
#include "storage/storage.h"
#include "storage/store_clock.h"

namespace millstream {

struct ObjectLockOptions {
  std::shared_ptr<StoreClock> clock;
  std::chrono::milliseconds heartbeat{10'000};
  std::chrono::milliseconds stale{60'000};
};

/// Takes the lock `key`. AlreadyExists, with the holder's text as its message, if another has it.
/// `retrying` asks until it knows; heartbeats go to `store`, once each, since the next is never
/// far. What the lock guards must be safe, too, if two hold it for a moment: a holder that was
/// stopped for a minute cannot know that it has lost it.
Result<std::unique_ptr<StorageLock>> LockObject(
    std::shared_ptr<ObjectStore> store,
    ObjectStore& retrying,
    const std::string& key,
    std::string_view holder,
    const ObjectLockOptions& options
);

/// The text of the lock's holder; nothing if nobody has it.
Result<std::optional<std::string>> HolderOfLock(
    ObjectStore& retrying, const std::string& key, const ObjectLockOptions& options
);

}  // namespace millstream
