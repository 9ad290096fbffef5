// SPDX-License-Identifier: Apache-2.0
#include "engine/recorded_engine.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "base/mutex.h"
#include "engine/watchdog.h"

namespace millstream {
namespace {

class RecordedEngine final : public Engine {
 public:
  RecordedEngine(
      std::unique_ptr<Engine> inner, FlightRecorder& recorder, RecordedEngineOptions options
  )
      : inner_(std::move(inner)),
        recorder_(recorder),
        options_(std::move(options)),
        look_every_(std::min<Watchdog::Duration>(std::chrono::seconds(1), options_.hang_limit / 8)),
        watchdog_(options_.hang_limit) {}

  Room room() const override { return inner_->room(); }

  void Submit(Request request) override {
    {
      MutexLock lock(mutex_);
      open_[request.id] = request.random;
    }
    recorder_.Enter({request.random, request.name});
    inner_->Submit(std::move(request));
  }

  void Cancel(RequestId id) override { inner_->Cancel(id); }

  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    while (true) {
      Deadline look = deadline;
      if (watches()) look = std::min(deadline, std::chrono::steady_clock::now() + look_every_);
      auto completions = inner_->Poll(look, stop);
      if (completions.status().IsOutOfMemory()) recorder_.SetCause(FlightCause::kOutOfMemory);
      MS_RETURN_NOT_OK(completions.status());
      Leave(*completions);
      if (watches()) Watch();
      if (!completions->empty() || look == deadline || stop.stop_requested()) return completions;
    }
  }

  EngineStats stats() const override { return inner_->stats(); }

 private:
  bool watches() const { return options_.hang_limit.count() > 0; }

  void Leave(const std::vector<Completion>& completions) {
    MutexLock lock(mutex_);
    for (const Completion& completion : completions) {
      const auto found = open_.find(completion.id);
      if (found == open_.end()) continue;
      recorder_.Leave(found->second);
      open_.erase(found);
    }
  }

  void Watch() {
    bool is_busy = false;
    {
      MutexLock lock(mutex_);
      is_busy = !open_.empty();
    }
    const auto now = options_.now ? options_.now() : std::chrono::steady_clock::now();
    if (!watchdog_.IsHung(now, is_busy, inner_->stats())) return;
    recorder_.SetCause(FlightCause::kHang);
    std::abort();
  }

  const std::unique_ptr<Engine> inner_;
  FlightRecorder& recorder_;
  const RecordedEngineOptions options_;
  const Watchdog::Duration look_every_;
  Watchdog watchdog_;  // the polling thread's

  Mutex mutex_;
  std::map<RequestId, RandomKey> open_ MS_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Engine> MakeRecordedEngine(
    std::unique_ptr<Engine> inner, FlightRecorder& recorder, RecordedEngineOptions options
) {
  return std::make_unique<RecordedEngine>(std::move(inner), recorder, std::move(options));
}

}  // namespace millstream
