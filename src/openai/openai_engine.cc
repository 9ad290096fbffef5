// SPDX-License-Identifier: Apache-2.0
#include "openai/openai_engine.h"

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>

#include "base/mutex.h"
#include "base/task_scope.h"
#include "http/http_loop.h"
#include "openai/dispatch.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kAnswerBytesMax = 64 << 20;
constexpr std::chrono::milliseconds kIdleWait{1000};
constexpr std::size_t kBytesPerToken = 4;  // about

HttpOptions LoopOptions() {
  HttpOptions options;
  options.stall_timeout_s = 0;  // a server says nothing until the whole answer is there
  return options;
}

DispatchOptions OptionsOfDispatch(const OpenAiEngineOptions& options) {
  DispatchOptions dispatch;
  dispatch.num_servers = options.base_urls.size();
  dispatch.max_in_flight = options.max_in_flight;
  dispatch.row_deadline = options.row_deadline;
  dispatch.gone_limit = options.gone_limit;
  dispatch.backoff_first = options.backoff_first;
  return dispatch;
}

class OpenAiEngine final : public Engine {
 public:
  explicit OpenAiEngine(OpenAiEngineOptions options)
      : options_(std::move(options)),
        loop_(LoopOptions()),
        dispatch_(OptionsOfDispatch(options_), std::random_device()()),
        room_(dispatch_.room()) {
    thread_.Spawn([this](std::stop_token stop) { return Work(std::move(stop)); });
  }
  ~OpenAiEngine() override {
    thread_.RequestStop();
    loop_.Wake();
    (void)thread_.Join();  // what it may fail of, Poll() has said
  }
  OpenAiEngine(const OpenAiEngine&) = delete;
  OpenAiEngine& operator=(const OpenAiEngine&) = delete;

  Room room() const override {
    MutexLock lock(mutex_);
    return {
        std::max<std::int64_t>(room_ - static_cast<std::int64_t>(submitted_.size()), 0),
        std::numeric_limits<std::int64_t>::max()
    };
  }
  void Submit(Request request) override {
    {
      MutexLock lock(mutex_);
      submitted_.push_back(std::move(request));
    }
    loop_.Wake();
  }
  void Cancel(RequestId id) override {
    {
      MutexLock lock(mutex_);
      cancelled_.push_back(id);
    }
    loop_.Wake();
  }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    MutexLock lock(mutex_);
    ended_.wait_until(lock, stop, deadline, [this]() MS_REQUIRES(mutex_) {
      return !completions_.empty() || !why_stopped_.empty();
    });
    if (completions_.empty() && !why_stopped_.empty()) return EngineBroken(why_stopped_);
    return std::exchange(completions_, {});
  }
  EngineStats stats() const override {
    MutexLock lock(mutex_);
    return stats_;
  }

 private:
  // The one thread that knows the loop, the dispatch and the requests.
  Status Work(std::stop_token stop) {
    while (!stop.stop_requested()) {
      std::vector<Completion> done = TakeSubmitted();
      while (const auto sending = dispatch_.Next(Clock::now())) Send(*sending);
      for (HttpLoop::Ended& ended : loop_.Run(done.empty() ? WaitTime() : kNone)) {
        Verdict verdict = JudgeReply(ended.reply, std::time(nullptr));
        auto completion = dispatch_.Ended(ended.id, std::move(verdict), Clock::now());
        if (!completion) continue;
        requests_.erase(ended.id);
        done.push_back(*std::move(completion));
      }
      Publish(std::move(done));
    }
    return Status::OK();
  }

  // Returns those that were cancelled.
  std::vector<Completion> TakeSubmitted() {
    std::vector<Request> submitted;
    std::vector<RequestId> cancelled;
    {
      MutexLock lock(mutex_);
      submitted.swap(submitted_);
      cancelled.swap(cancelled_);
      // The room is known anew once they are counted.
      room_ -= static_cast<std::int64_t>(submitted.size());
    }
    for (Request& request : submitted) {
      const RequestId id = request.id;
      dispatch_.Add(id, static_cast<std::int64_t>(request.http_body.size() / kBytesPerToken));
      requests_.emplace(id, std::move(request));
    }
    std::vector<Completion> done;
    for (const RequestId id : cancelled) {
      if (requests_.erase(id) == 0) continue;  // it has ended
      loop_.Cancel(id);
      dispatch_.Cancel(id, Clock::now());
      done.emplace_back().id = id;
      done.back().reason = FinishReason::kCancelled;
    }
    return done;
  }

  void Send(const Dispatch::Sending& sending) {
    const Request& request = requests_.at(sending.id);
    HttpRequest http;
    http.method = "POST";
    http.url = options_.base_urls[sending.server] + request.http_path;
    http.headers = options_.headers;
    http.body = request.http_body;
    http.body_bytes_max = kAnswerBytesMax;
    http.timeout_ms = options_.timeout.count();
    loop_.Start(sending.id, std::move(http));
  }

  std::chrono::milliseconds WaitTime() const {
    const auto next = dispatch_.NextTime();
    if (!next) return kIdleWait;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
    return std::clamp(left, kNone, kIdleWait);
  }

  void Publish(std::vector<Completion> done) {
    MutexLock lock(mutex_);
    room_ = dispatch_.room();
    why_stopped_ = dispatch_.WhyStopped(Clock::now());
    for (const Completion& completion : done) {
      stats_.prompt_tokens += completion.prompt_tokens;
      stats_.completion_tokens += completion.completion_tokens;
      ++stats_.requests_finished;
    }
    completions_.insert(
        completions_.end(),
        std::make_move_iterator(done.begin()),
        std::make_move_iterator(done.end())
    );
    if (!completions_.empty() || !why_stopped_.empty()) ended_.notify_all();
  }

  static constexpr std::chrono::milliseconds kNone{0};
  const OpenAiEngineOptions options_;
  HttpLoop loop_;
  Dispatch dispatch_;
  std::unordered_map<RequestId, Request> requests_;  // not yet completed

  mutable Mutex mutex_;
  std::condition_variable_any ended_;
  std::vector<Request> submitted_ MS_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ MS_GUARDED_BY(mutex_);
  std::vector<Completion> completions_ MS_GUARDED_BY(mutex_);
  std::int64_t room_ MS_GUARDED_BY(mutex_);
  std::string why_stopped_ MS_GUARDED_BY(mutex_);
  EngineStats stats_ MS_GUARDED_BY(mutex_);
  TaskScope thread_;  // last: joined before the rest goes
};

}  // namespace

std::unique_ptr<Engine> MakeOpenAiEngine(OpenAiEngineOptions options) {
  return std::make_unique<OpenAiEngine>(std::move(options));
}

}  // namespace millstream
