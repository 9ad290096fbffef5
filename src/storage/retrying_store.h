// SPDX-License-Identifier: Apache-2.0
// An object store that asks again: what did not get through is sent once more, until it is known
// how it ended.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "base/mutex.h"
#include "storage/object_store.h"
#include "storage/store_clock.h"

namespace millstream {

struct RetryPolicy {
  std::chrono::milliseconds delay_min{100};
  std::chrono::milliseconds delay_max{20'000};
  /// A request that fails for so long is given up: what failed can be resumed.
  std::chrono::milliseconds outage_max{15 * 60'000};
  /// The same as long as the store never answered: then it is its address that is wrong.
  std::chrono::milliseconds first_contact_max{30'000};
  /// Retries at the jittered delay: so many, and one more for every ten requests that are sent.
  /// The others wait `delay_max`, so that nobody hammers a store that is down.
  std::int64_t retry_floor = 20;
  std::int64_t requests_per_retry = 10;
};

struct RetryStats {
  std::int64_t num_requests = 0;  // sent, retries included
  std::int64_t num_retries = 0;
  std::int64_t num_slow_retries = 0;  // those beyond the budget
};

/// Replies are those of the wrapped store, but: kUnknown and kUnavailable come only when it gave
/// up, kConflict the same, and a Put whose condition failed on account of an earlier try of its
/// own, told by the write_id, is kDone. A Put without a write_id is sent under a new one.
/// Thread-safe.
class RetryingStore final : public ObjectStore {
 public:
  /// Once `stop` is requested nothing is waited for any more: the next failure is the last.
  RetryingStore(
      std::shared_ptr<ObjectStore> base,
      std::shared_ptr<StoreClock> clock,
      RetryPolicy policy,
      std::stop_token stop
  );

  StoreReply Put(const PutRequest& request) override;
  StoreReply Get(const GetRequest& request) override;
  StoreReply Head(const std::string& key) override;
  StoreReply List(const ListRequest& request) override;
  StoreReply Delete(const std::string& key) override;

  RetryStats stats() const {
    MutexLock lock(mutex_);
    return stats_;
  }

 private:
  template <typename Request>
  StoreReply Repeat(Request request);
  // Whether a retry at the jittered delay is within the budget.
  bool TakeRetry();
  void Count(const StoreReply& reply);

  const std::shared_ptr<ObjectStore> base_;
  const std::shared_ptr<StoreClock> clock_;
  const RetryPolicy policy_;
  const std::stop_token stop_;

  mutable Mutex mutex_;
  RetryStats stats_ MS_GUARDED_BY(mutex_);
  std::int64_t num_fast_retries_ MS_GUARDED_BY(mutex_) = 0;
  bool has_answered_ MS_GUARDED_BY(mutex_) = false;
};

}  // namespace millstream
