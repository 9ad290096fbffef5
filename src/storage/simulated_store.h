// SPDX-License-Identifier: Apache-2.0
// An object store for tests: in memory, with atomic conditions, whose requests may fail, be done
// without the client hearing of it, or be done later, when the client has long given up. And a
// clock for it.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "storage/object_store.h"
#include "storage/store_clock.h"

namespace millstream {

/// Time passes only while someone waits, and then at once. Thread-safe.
class SimulatedClock final : public StoreClock {
 public:
  explicit SimulatedClock(std::uint64_t seed) : random_(seed) {}

  std::chrono::milliseconds Now() override;
  bool Wait(std::chrono::milliseconds duration, std::stop_token stop) override;
  std::uint64_t Random() override;

  void Advance(std::chrono::milliseconds duration);
  /// Calls `act` in each Wait: what others do meanwhile.
  void OnWait(std::function<void()> act) { on_wait_ = std::move(act); }

 private:
  std::function<void()> on_wait_;
  Mutex mutex_;
  std::chrono::milliseconds now_ MS_GUARDED_BY(mutex_){0};
  std::mt19937_64 random_ MS_GUARDED_BY(mutex_);
};

/// How likely it is, for each request, to end otherwise than it should.
struct StoreFaults {
  double unavailable = 0;  // not done, and the client is told so
  double ambiguous = 0;    // done, and the client hears nothing
  double delayed = 0;   // done up to `delay_requests_max` requests later; the client hears nothing
  double lost = 0;      // not done, and the client hears nothing
  double conflict = 0;  // a Put: not done, 409
  int delay_requests_max = 60;
  bool ignores_conditions = false;
};

/// Thread-safe.
class SimulatedStore final : public ObjectStore {
 public:
  SimulatedStore(std::shared_ptr<StoreClock> clock, std::uint64_t seed, StoreFaults faults = {})
      : clock_(std::move(clock)), random_(seed), faults_(faults) {}

  void SetFaults(const StoreFaults& faults) {
    MutexLock lock(mutex_);
    faults_ = faults;
  }
  /// Calls `act` before each request: what others do meanwhile.
  void OnRequest(std::function<void()> act) { on_request_ = std::move(act); }
  /// Does the delayed requests that are still under way.
  void Settle();

  std::map<std::string, std::string> Objects() const;
  /// The keys whose bytes were replaced by others since they were there first.
  std::set<std::string> Changed() const {
    MutexLock lock(mutex_);
    return changed_;
  }
  std::int64_t num_requests() const {
    MutexLock lock(mutex_);
    return num_requests_;
  }

  StoreReply Put(const PutRequest& request) override;
  StoreReply Get(const GetRequest& request) override;
  StoreReply Head(const std::string& key) override;
  StoreReply List(const ListRequest& request) override;
  StoreReply Delete(const std::string& key) override;

 private:
  struct Object {
    std::string bytes, write_id;
    std::int64_t modified_s = 0;
  };
  struct DelayedPut {
    std::int64_t at = 0;  // number of a request
    PutRequest request;
    std::string bytes;
  };

  // Counts a request, does the delayed ones that are due, and draws how it is to fail, if it is.
  void Begin(StoreReply& reply, bool& is_done) MS_REQUIRES(mutex_);
  StoreReply Apply(const PutRequest& request) MS_REQUIRES(mutex_);
  StoredObject Describe(const std::string& key, const Object& object) const MS_REQUIRES(mutex_);
  bool Chance(double probability) MS_REQUIRES(mutex_);

  const std::shared_ptr<StoreClock> clock_;
  std::function<void()> on_request_;
  mutable Mutex mutex_;
  std::mt19937_64 random_ MS_GUARDED_BY(mutex_);
  StoreFaults faults_ MS_GUARDED_BY(mutex_);
  std::map<std::string, Object> objects_ MS_GUARDED_BY(mutex_);
  std::set<std::string> changed_ MS_GUARDED_BY(mutex_);
  std::vector<DelayedPut> delayed_ MS_GUARDED_BY(mutex_);
  std::int64_t num_requests_ MS_GUARDED_BY(mutex_) = 0;
};

}  // namespace millstream
