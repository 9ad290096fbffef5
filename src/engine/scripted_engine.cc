// SPDX-License-Identifier: Apache-2.0
#include "engine/scripted_engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <new>
#include <random>
#include <utility>

#include "base/mutex.h"

namespace millstream {
namespace {

class ScriptedEngine final : public Engine {
 public:
  explicit ScriptedEngine(ScriptedEngineOptions options)
      : options_(std::move(options)), shuffle_(options_.seed) {
    if (options_.die_after == 0) death_ = Status::IOError("engine died: as scripted");
  }

  Room room() const override {
    MutexLock lock(mutex_);
    const auto open = static_cast<std::int64_t>(waiting_.size());
    const std::int64_t requests = std::max<std::int64_t>(0, options_.max_requests - open);
    return {requests, requests * kTokensPerRequest};
  }

  void Submit(Request request) override {
    MutexLock lock(mutex_);
    waiting_.push_back({std::move(request), false});
    changed_ = true;
    news_.notify_all();
  }

  void Cancel(RequestId id) override {
    MutexLock lock(mutex_);
    for (Entry& entry : waiting_) {
      if (entry.request.id == id) entry.cancelled = true;
    }
    changed_ = true;
    news_.notify_all();
  }

  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    while (true) {
      std::deque<Entry> due;
      {
        MutexLock lock(mutex_);
        MS_RETURN_NOT_OK(death_);
        changed_ = false;
        due = TakeDue();
      }
      if (!due.empty()) return Answer(due);
      MutexLock lock(mutex_);
      const bool news =
          news_.wait_until(lock, stop, deadline, [this]() MS_REQUIRES(mutex_) { return changed_; });
      if (!news) return std::vector<Completion>();
    }
  }

  EngineStats stats() const override {
    MutexLock lock(mutex_);
    return stats_;
  }

 private:
  static constexpr std::int64_t kTokensPerRequest = 4096;

  struct Entry {
    Request request;
    bool cancelled;
  };

  bool IsDue(const Entry& entry) const {
    return entry.cancelled || !options_.is_due || options_.is_due(entry.request);
  }

  std::deque<Entry> TakeDue() MS_REQUIRES(mutex_) {
    std::size_t limit = waiting_.size();
    if (options_.per_poll > 0) limit = static_cast<std::size_t>(options_.per_poll);
    if (options_.die_after >= 0) {
      limit =
          std::min(limit, static_cast<std::size_t>(options_.die_after - stats_.requests_finished));
    }
    if (options_.order == FinishOrder::kShuffled)
      std::shuffle(waiting_.begin(), waiting_.end(), shuffle_);
    if (options_.order == FinishOrder::kReversed) std::reverse(waiting_.begin(), waiting_.end());
    std::deque<Entry> due, rest;
    for (Entry& entry : waiting_) {
      (due.size() < limit && IsDue(entry) ? due : rest).push_back(std::move(entry));
    }
    waiting_ = std::move(rest);
    if (options_.order == FinishOrder::kReversed) std::reverse(waiting_.begin(), waiting_.end());
    return due;
  }

  Result<std::vector<Completion>> Answer(const std::deque<Entry>& due) {
    std::vector<Completion> completions;
    for (const Entry& entry : due) {
      try {
        completions.push_back(AnswerOne(entry));
      } catch (const std::bad_alloc&) {
        return Die(Status::OutOfMemory("engine died: out of memory"));
      } catch (const std::exception& error) {
        return Die(Status::IOError("engine died: ", error.what()));
      }
    }
    MutexLock lock(mutex_);
    for (const Completion& completion : completions) {
      stats_.prompt_tokens += completion.prompt_tokens;
      stats_.completion_tokens += completion.completion_tokens;
      ++stats_.requests_finished;
    }
    ++stats_.steps;
    if (stats_.requests_finished == options_.die_after) {
      death_ = Status::IOError("engine died: as scripted");
    }
    return completions;
  }

  Status Die(Status death) {
    MutexLock lock(mutex_);
    death_ = std::move(death);
    return death_;
  }

  Completion AnswerOne(const Entry& entry) const {
    Completion completion;
    if (entry.cancelled) {
      if (options_.cut) completion = options_.cut(entry.request);
      completion.reason = FinishReason::kCancelled;
    } else if (options_.answer) {
      completion = options_.answer(entry.request);
    }
    completion.id = entry.request.id;
    if (completion.prompt_tokens == 0) {
      completion.prompt_tokens = static_cast<std::int64_t>(entry.request.prompt_tokens.size());
    }
    if (completion.completion_tokens == 0) {
      completion.completion_tokens = static_cast<std::int64_t>(completion.tokens.size());
    }
    return completion;
  }

  const ScriptedEngineOptions options_;

  mutable Mutex mutex_;
  std::condition_variable_any news_;
  std::deque<Entry> waiting_ MS_GUARDED_BY(mutex_);  // in order of submission, if not shuffled
  std::mt19937_64 shuffle_ MS_GUARDED_BY(mutex_);
  bool changed_ MS_GUARDED_BY(mutex_) = false;  // since the last look at waiting_
  Status death_ MS_GUARDED_BY(mutex_) = Status::OK();
  EngineStats stats_ MS_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Engine> MakeScriptedEngine(ScriptedEngineOptions options) {
  return std::make_unique<ScriptedEngine>(std::move(options));
}

}  // namespace millstream
