// SPDX-License-Identifier: Apache-2.0
#include "openai/openai_engine.h"

#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <exception>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <unordered_map>
#include <utility>

#include "base/mutex.h"
#include "base/task_scope.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "http/http_loop.h"
#include "openai/dispatch.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kAnswerBytesMax = 64 << 20;
constexpr std::chrono::milliseconds kIdleWait{1000};
constexpr std::chrono::seconds kSilence{5};

DispatchOptions OptionsOfDispatch(const OpenAiEngineOptions& options) {
  DispatchOptions dispatch;
  dispatch.num_servers = options.access.base_urls.size();
  dispatch.max_in_flight = options.max_in_flight;
  dispatch.requests_per_minute = options.requests_per_minute;
  dispatch.tokens_per_minute = options.tokens_per_minute;
  dispatch.row_deadline = options.row_deadline;
  dispatch.gone_limit = options.gone_limit;
  dispatch.backoff_first = options.backoff_first;
  return dispatch;
}

class OpenAiEngine final : public Engine {
 public:
  explicit OpenAiEngine(OpenAiEngineOptions options)
      : options_(std::move(options)),
        loop_(options_.access.http_options()),
        dispatch_(OptionsOfDispatch(options_), std::random_device()()),
        room_(dispatch_.room()) {
    thread_.Spawn([this](std::stop_token stop) {
      try {
        return Work(std::move(stop));
      } catch (const std::exception& failure) {  // whoever polls is to hear of it
        MutexLock lock(mutex_);
        why_stopped_ = fmt::format("the requests to the servers failed: {}", failure.what());
        ended_.notify_all();
        throw;
      }
    });
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
      while (const auto server = dispatch_.NextProbe(Clock::now())) Probe(*server);
      for (HttpLoop::Ended& ended : loop_.Run(done.empty() ? WaitTime() : kNone)) {
        Verdict verdict = JudgeReply(ended.reply, std::time(nullptr));
        Redact(verdict.message);
        Redact(verdict.completion.error_message);
        if (ended.id < 0) {
          dispatch_.Probed(static_cast<std::size_t>(-1 - ended.id), verdict, Clock::now());
          continue;
        }
        auto completion = dispatch_.Ended(ended.id, std::move(verdict), Clock::now());
        if (!completion) continue;
        requests_.erase(ended.id);
        done.push_back(*std::move(completion));
      }
      Publish(std::move(done));
      SayOutage();
    }
    return Status::OK();
  }

  void Redact(std::string& message) const {
    message = options_.access.Redacted(std::move(message));
  }

  // A person who sees no row end wants to know what it waits for.
  void SayOutage() {
    const auto since = dispatch_.failing_since();
    if (!options_.say || since.has_value() == was_said_) return;
    if (!since) {
      options_.say("the servers answer again");
    } else if (Clock::now() - *since < kSilence) {
      return;
    } else {
      options_.say(fmt::format(
          "no answer from {} for {} s ({}): waiting for {} minutes, then the job stops and can be "
          "resumed",
          fmt::join(options_.access.base_urls, ", "),
          std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - *since).count(),
          dispatch_.last_failure(),
          std::chrono::ceil<std::chrono::minutes>(options_.gone_limit).count()
      ));
    }
    was_said_ = since.has_value();
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
      dispatch_.Add(id, EstimateTokens(request.http_body));
      requests_.emplace(id, std::move(request));
    }
    std::vector<Completion> done;
    for (const RequestId id : cancelled) {
      if (!requests_.contains(id)) continue;  // it has ended
      loop_.Cancel(id);
      requests_.erase(id);
      dispatch_.Cancel(id);
      done.emplace_back().id = id;
      done.back().reason = FinishReason::kCancelled;
    }
    return done;
  }

  void Send(const Dispatch::Sending& sending) {
    const Request& request = requests_.at(sending.id);
    Post(sending.id, sending.server, request.http_path, request.http_body);
  }

  // Probes have the ids below 0.
  void Probe(std::size_t server) {
    const auto probe = options_.probes.find(requests_.begin()->second.http_path);
    if (probe == options_.probes.end()) return;
    Post(-1 - static_cast<RequestId>(server), server, probe->first, probe->second);
  }

  void Post(RequestId id, std::size_t server, const std::string& path, std::string_view body) {
    HttpRequest http;
    http.method = "POST";
    http.url = options_.access.base_urls[server] + path;
    http.headers = options_.access.headers;
    http.body = body;
    http.body_bytes_max = kAnswerBytesMax;
    http.timeout_ms = options_.timeout.count();
    loop_.Start(id, std::move(http));
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
      stats_.cost += (static_cast<double>(completion.prompt_tokens) * options_.price.input +
                      static_cast<double>(completion.completion_tokens) * options_.price.output) /
                     1e6;
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
  bool was_said_ = false;                            // that no server answers

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
  // A connection a request.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);  // else there are fewer at a time
  }
  return std::make_unique<OpenAiEngine>(std::move(options));
}

}  // namespace millstream
