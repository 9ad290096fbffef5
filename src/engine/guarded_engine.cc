// SPDX-License-Identifier: Apache-2.0
#include "engine/guarded_engine.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <utility>

#include "base/mutex.h"

namespace millstream {
namespace {

constexpr auto kSlice = std::chrono::milliseconds(20);  // two engines are polled in turn

class GuardedEngine final : public Engine {
 public:
  GuardedEngine(
      std::unique_ptr<Engine> inner,
      FlightRecorder& recorder,
      std::span<const Flight> suspects,
      std::function<Result<std::unique_ptr<Engine>>()> make_child
  )
      : inner_(std::move(inner)), recorder_(recorder), make_child_(std::move(make_child)) {
    for (const Flight& suspect : suspects) suspects_.insert({suspect.key.high, suspect.key.low});
  }

  Room room() const override { return inner_->room(); }

  void Submit(Request request) override {
    {
      MutexLock lock(mutex_);
      if (suspects_.contains({request.random.high, request.random.low})) {
        deferred_.push_back(std::move(request));
        return;
      }
      ++num_inner_;
    }
    inner_->Submit(std::move(request));
  }

  void Cancel(RequestId id) override {
    inner_->Cancel(id);
    MutexLock lock(mutex_);
    cancelled_.push_back(id);  // for the child, once it has them
  }

  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    while (true) {
      MS_RETURN_NOT_OK(Release());
      const Deadline slice = std::min(deadline, std::chrono::steady_clock::now() + kSlice);
      MS_ASSIGN_OR_RETURN(std::vector<Completion> completions, PollBoth(slice, stop));
      if (!completions.empty() || slice == deadline || stop.stop_requested()) return completions;
    }
  }

  EngineStats stats() const override {
    EngineStats stats = inner_->stats();
    MutexLock lock(mutex_);
    stats += past_children_;
    if (child_) stats += child_->stats();
    return stats;
  }

 private:
  // Gives the child what waits for it, if its time has come.
  Status Release() {
    std::vector<Request> released;
    std::vector<RequestId> cancelled;
    {
      MutexLock lock(mutex_);
      if (num_inner_ == 0) released.swap(deferred_);
      if (deferred_.empty()) cancelled.swap(cancelled_);
    }
    if (!released.empty() && !child_) {
      MS_ASSIGN_OR_RETURN(auto child, make_child_());
      MutexLock lock(mutex_);
      child_ = std::move(child);
    }
    for (Request& request : released) {
      in_child_[request.id] = request.random;
      child_->Submit(std::move(request));
    }
    for (const RequestId id : cancelled) {
      if (in_child_.contains(id)) child_->Cancel(id);
    }
    return Status::OK();
  }

  Result<std::vector<Completion>> PollBoth(Deadline deadline, const std::stop_token& stop) {
    std::vector<Completion> completions;
    if (!in_child_.empty()) {
      MS_ASSIGN_OR_RETURN(completions, child_->Poll(deadline, stop));
      for (const Completion& completion : completions) Acquit(completion.id);
      deadline = Deadline::min();
    }
    MS_ASSIGN_OR_RETURN(std::vector<Completion> others, inner_->Poll(deadline, stop));
    MutexLock lock(mutex_);
    num_inner_ -= std::ssize(others);
    std::move(others.begin(), others.end(), std::back_inserter(completions));
    return completions;
  }

  void Acquit(RequestId id) {
    const RandomKey key = in_child_.extract(id).mapped();
    recorder_.Leave(key);
    MutexLock lock(mutex_);
    suspects_.erase({key.high, key.low});
    if (!in_child_.empty()) return;
    past_children_ += child_->stats();
    child_.reset();  // its memory is wanted elsewhere
  }

  const std::unique_ptr<Engine> inner_;
  FlightRecorder& recorder_;
  const std::function<Result<std::unique_ptr<Engine>>()> make_child_;
  std::map<RequestId, RandomKey> in_child_;  // the polling thread's

  mutable Mutex mutex_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> suspects_ MS_GUARDED_BY(mutex_);
  std::vector<Request> deferred_ MS_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ MS_GUARDED_BY(mutex_);
  std::int64_t num_inner_ MS_GUARDED_BY(mutex_) = 0;
  // Changed by the polling thread alone, which may read it without the mutex.
  std::unique_ptr<Engine> child_;
  EngineStats past_children_ MS_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Engine> MakeGuardedEngine(
    std::unique_ptr<Engine> inner,
    FlightRecorder& recorder,
    std::span<const Flight> suspects,
    std::function<Result<std::unique_ptr<Engine>>()> make_child
) {
  if (suspects.empty()) return inner;
  return std::make_unique<GuardedEngine>(
      std::move(inner), recorder, suspects, std::move(make_child)
  );
}

}  // namespace millstream
