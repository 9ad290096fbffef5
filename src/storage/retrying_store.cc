// SPDX-License-Identifier: Apache-2.0
#include "storage/retrying_store.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace millstream {
namespace {

bool MayHelpToRepeat(StoreOutcome outcome) {
  return outcome == StoreOutcome::kUnavailable || outcome == StoreOutcome::kUnknown ||
         outcome == StoreOutcome::kConflict;
}

// The delays between tries: each drawn between the least and three times the one before, so that
// many who failed together do not come back together (AWS Architecture Blog, "Exponential backoff
// and jitter", 2015).
class Delays {
 public:
  Delays(const RetryPolicy& policy, StoreClock& clock)
      : policy_(policy), clock_(clock), last_(policy.delay_min) {}

  std::chrono::milliseconds Next() {
    const auto span = 3 * last_.count() - policy_.delay_min.count() + 1;
    const auto drawn =
        static_cast<std::int64_t>(clock_.Random() % static_cast<std::uint64_t>(span));
    last_ = std::min(policy_.delay_max, policy_.delay_min + std::chrono::milliseconds(drawn));
    return last_;
  }

 private:
  const RetryPolicy& policy_;
  StoreClock& clock_;
  std::chrono::milliseconds last_;
};

}  // namespace

RetryingStore::RetryingStore(
    std::shared_ptr<ObjectStore> base,
    std::shared_ptr<StoreClock> clock,
    RetryPolicy policy,
    std::stop_token stop
)
    : base_(std::move(base)), clock_(std::move(clock)), policy_(policy), stop_(std::move(stop)) {}

template <typename Request>
StoreReply RetryingStore::Repeat(Request request) {
  Delays delays(policy_, *clock_);
  std::optional<std::chrono::milliseconds> first_failure;
  for (;;) {
    StoreReply reply = request();
    Count(reply);
    if (!MayHelpToRepeat(reply.outcome)) return reply;
    if (!first_failure) first_failure = clock_->Now();
    std::chrono::milliseconds patience = policy_.outage_max;
    {
      MutexLock lock(mutex_);
      if (!has_answered_) patience = policy_.first_contact_max;
    }
    if (clock_->Now() - *first_failure >= patience) return reply;
    const auto delay = TakeRetry() ? delays.Next() : policy_.delay_max;
    if (!clock_->Wait(delay, stop_)) return reply;
  }
}

bool RetryingStore::TakeRetry() {
  MutexLock lock(mutex_);
  ++stats_.num_retries;
  const std::int64_t allowed =
      policy_.retry_floor + stats_.num_requests / policy_.requests_per_retry;
  if (num_fast_retries_ >= allowed) {
    ++stats_.num_slow_retries;
    return false;
  }
  ++num_fast_retries_;
  return true;
}

void RetryingStore::Count(const StoreReply& reply) {
  MutexLock lock(mutex_);
  ++stats_.num_requests;
  if (!MayHelpToRepeat(reply.outcome)) has_answered_ = true;
}

StoreReply RetryingStore::Put(const PutRequest& given) {
  PutRequest request = given;
  if (request.write_id.empty()) request.write_id = UniqueName(*clock_);
  StoreReply reply = Repeat([&] {
    StoreReply tried = base_->Put(request);
    if (tried.outcome != StoreOutcome::kConditionFailed) return tried;
    // Any condition may have failed by an earlier try of ours, that of the first try too: HTTP
    // clients send a request again when a kept connection turns out to be dead. The write_id tells.
    StoreReply stands = base_->Head(request.key);
    if (stands.ok() && stands.object.write_id == request.write_id) return stands;
    if (stands.ok() || stands.outcome == StoreOutcome::kRefused) return tried;
    // Gone again, or not known: as if this try had not been.
    if (stands.outcome == StoreOutcome::kNotFound) stands.outcome = StoreOutcome::kConflict;
    return stands;
  });
  return reply;
}

StoreReply RetryingStore::Get(const GetRequest& request) {
  return Repeat([&] { return base_->Get(request); });
}

StoreReply RetryingStore::Head(const std::string& key) {
  return Repeat([&] { return base_->Head(key); });
}

StoreReply RetryingStore::List(const ListRequest& request) {
  return Repeat([&] { return base_->List(request); });
}

StoreReply RetryingStore::Delete(const std::string& key) {
  return Repeat([&] { return base_->Delete(key); });
}

}  // namespace millstream
