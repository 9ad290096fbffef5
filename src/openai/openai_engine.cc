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

#include "base/check.h"
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
constexpr long kLookTimeoutMs = 10'000;

// What is sent for no row: it has the ids below 0.
enum class Errand { kProbe, kLook, kIsReady, kHangProbe };
constexpr RequestId kErrands = 4;

RequestId IdOf(Errand errand, std::size_t server) {
  return -1 - kErrands * static_cast<RequestId>(server) - static_cast<RequestId>(errand);
}

std::pair<Errand, std::size_t> ErrandOf(RequestId id) {
  const RequestId number = -1 - id;
  return {static_cast<Errand>(number % kErrands), static_cast<std::size_t>(number / kErrands)};
}

// How many this process may have: with one a request, and what else it opens left out.
std::int64_t ConnectionsMax() {
  constexpr std::int64_t kOthers = 128, kMost = 16384;
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return kMost;
  if (files.rlim_cur < files.rlim_max) {
    const rlimit raised{files.rlim_max, files.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) files = raised;
  }
  const auto limit = static_cast<std::int64_t>(std::min<rlim_t>(files.rlim_cur, 2 * kMost));
  return std::clamp<std::int64_t>(limit - std::min(kOthers, limit / 2), 1, kMost);
}

HttpOptions LoopOptions(const ServerAccess& access, std::int64_t most) {
  HttpOptions options = access.http_options();
  options.connections_max = static_cast<std::size_t>(most);
  options.resends = false;  // a row that kills servers is to do so once
  return options;
}

DispatchOptions OptionsOfDispatch(const OpenAiEngineOptions& options, std::int64_t most) {
  DispatchOptions dispatch;
  dispatch.most_in_flight = std::max<std::int64_t>(most, 1);
  dispatch.is_launched = options.launch.has_value();
  dispatch.num_servers = dispatch.is_launched ? 1 : options.access.base_urls.size();
  dispatch.num_probes = static_cast<int>(options.probes.size());
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
  OpenAiEngine(OpenAiEngineOptions options, std::int64_t most)
      : options_(std::move(options)),
        loop_(LoopOptions(options_.access, most)),
        dispatch_(OptionsOfDispatch(options_, most), std::random_device()()),
        room_(dispatch_.room()) {
    if (options_.launch) launcher_ = std::make_unique<Launcher>(*options_.launch);
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

  /// For a server that is launched.
  Status WaitUntilReady(std::stop_token stop) {
    MutexLock lock(mutex_);
    ended_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
      return is_ready_ || !why_stopped_.empty();
    });
    if (stop.stop_requested()) return Status::Cancelled("stopped while a server was started");
    return is_ready_ ? Status::OK() : Status::Invalid(why_stopped_);
  }

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
      if (launcher_) TendServer();
      if (!launcher_ || launcher_->is_ready()) SendWhatIsDue();
      for (Completion& failed : dispatch_.TakeFailed()) {
        loop_.Cancel(failed.id);
        requests_.erase(failed.id);
        CountFailed(failed);
        done.push_back(std::move(failed));
      }
      const int death = launcher_ ? launcher_->descriptor() : -1;
      for (auto& ended : loop_.Run(done.empty() ? WaitTime() : kNone, death)) {
        Take(ended, done);
      }
      Publish(std::move(done));
      SayOutage();
    }
    return Status::OK();
  }

  void CountFailed(const Completion& failed) {
    MutexLock lock(mutex_);
    if (!failed.killed_engine && launcher_) ++stats_.requests_hung;
  }

  void SendWhatIsDue() {
    while (const auto sending = dispatch_.Next(Clock::now())) Send(*sending);
    while (const auto server = dispatch_.NextProbe(Clock::now())) {
      Probe(IdOf(Errand::kProbe, *server), *server);
    }
    while (const auto server = dispatch_.NextLook(Clock::now())) {
      Get(IdOf(Errand::kLook, *server), UrlOf(*server) + "/models");
    }
    // Here, as what is sent now may have timed out when this thread looks again.
    if (launcher_ && dispatch_.is_asking()) launcher_->Asked(Clock::now());
  }

  void TendServer() {
    const auto now = Clock::now();
    switch (launcher_->Tend(now)) {  // an earlier question may be without a reply still
      case Launcher::Question::kIsReady:
        loop_.Cancel(IdOf(Errand::kIsReady, 0));
        Get(IdOf(Errand::kIsReady, 0), launcher_->ready_url());
        break;
      case Launcher::Question::kProbe:
        loop_.Cancel(IdOf(Errand::kHangProbe, 0));
        Probe(IdOf(Errand::kHangProbe, 0), 0);
        break;
      case Launcher::Question::kNone:
        break;
    }
    // Its connections are closed: what it answered before comes, all else ends as lost.
    const auto death = launcher_->death();
    if (!death || dispatch_.under_way() > 0) return;
    launcher_->Bury(now);
    dispatch_.ServerDied(0, death->how, death->hung, now);
  }

  void Take(HttpLoop::Ended& ended, std::vector<Completion>& done) {
    const auto [errand, server] = ErrandOf(ended.id);
    if (ended.id < 0 && errand == Errand::kIsReady) {
      return launcher_->TakeReady(ended.reply, Clock::now());
    }
    if (launcher_ && ended.reply.end == HttpReply::End::kDone) launcher_->Replied();
    const auto request = requests_.find(ended.id);  // an errand is none
    const bool is_probe = ended.id < 0 && errand == Errand::kProbe;
    const bool whole = is_probe || (request != requests_.end() && request->second.http_whole);
    Verdict verdict = Judge(ended.reply, whole);
    if (ended.id < 0) {
      if (errand == Errand::kProbe) dispatch_.Probed(server, verdict, Clock::now());
      if (errand == Errand::kLook) dispatch_.Looked(server, verdict, Clock::now());
      return;
    }
    auto completion = dispatch_.Ended(ended.id, std::move(verdict), Clock::now());
    if (!completion) return;
    requests_.erase(ended.id);
    done.push_back(*std::move(completion));
  }

  // Answers stay as they are. Of what else a server says a message holds no key, nor the beginning
  // of one that was cut to size.
  Verdict Judge(HttpReply& reply, bool whole) const {
    Verdict verdict = JudgeReply(reply, std::time(nullptr), whole);
    if (verdict.kind == Verdict::Kind::kAnswer || options_.access.secrets.empty()) return verdict;
    reply.body = options_.access.Redacted(std::move(reply.body));
    verdict = JudgeReply(reply, std::time(nullptr), whole);
    verdict.message = options_.access.Redacted(std::move(verdict.message));
    for (std::string* text : {&verdict.completion.error_message, &verdict.completion.text}) {
      *text = options_.access.Redacted(std::move(*text));
    }
    return verdict;
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
          launcher_ ? "the server" : fmt::format("{}", fmt::join(options_.access.base_urls, ", ")),
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

  void Probe(RequestId id, std::size_t server) {
    if (requests_.empty()) return;  // nobody waits for it any more
    auto probe = options_.probes.find(requests_.begin()->second.http_path);
    MS_CHECK(probe != options_.probes.end());
    // It may not have that endpoint.
    for (int refused = dispatch_.refused_probes(server); refused > 0; --refused) {
      if (++probe == options_.probes.end()) probe = options_.probes.begin();
    }
    Post(id, server, probe->first, probe->second);
  }

  std::string UrlOf(std::size_t server) const {
    return launcher_ ? launcher_->base_url() : options_.access.base_urls[server];
  }

  void Get(RequestId id, std::string url) {
    HttpRequest http;
    http.url = std::move(url);
    http.headers = options_.access.headers;
    http.body_bytes_max = kAnswerBytesMax;
    http.timeout_ms = kLookTimeoutMs;
    http.own_connection = true;  // kept ones may have broken
    loop_.Start(id, std::move(http));
  }

  void Post(RequestId id, std::size_t server, const std::string& path, std::string_view body) {
    HttpRequest http;
    http.method = "POST";
    http.url = UrlOf(server) + path;
    http.headers = options_.access.headers;
    http.body = body;
    http.body_bytes_max = kAnswerBytesMax;
    http.timeout_ms = options_.timeout.count();
    loop_.Start(id, std::move(http));
  }

  std::chrono::milliseconds WaitTime() const {
    std::chrono::milliseconds wait = kIdleWait;
    const auto until = [&](std::optional<Clock::time_point> time) {
      if (!time) return;
      wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(*time - Clock::now()));
    };
    if (!launcher_ || launcher_->is_ready()) until(dispatch_.NextTime());
    if (launcher_) until(launcher_->NextTime());
    return std::max(wait, kNone);
  }

  void Publish(std::vector<Completion> done) {
    MutexLock lock(mutex_);
    room_ = dispatch_.room();
    why_stopped_ = dispatch_.WhyStopped(Clock::now());
    if (launcher_) {
      if (why_stopped_.empty()) why_stopped_ = launcher_->why_given_up();
      if (launcher_->has_been_ready() && !std::exchange(is_ready_, true)) ended_.notify_all();
      stats_.restarts = launcher_->num_restarts();
    }
    for (const Completion& completion : done) {
      stats_.prompt_tokens += completion.prompt_tokens;
      stats_.completion_tokens += completion.completion_tokens;
      ++stats_.requests_finished;
      stats_.requests_crashed += completion.killed_engine ? 1 : 0;
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
  std::unique_ptr<Launcher> launcher_;               // null: the servers run elsewhere
  std::unordered_map<RequestId, Request> requests_;  // not yet completed
  bool was_said_ = false;                            // that no server answers

  mutable Mutex mutex_;
  std::condition_variable_any ended_;
  std::vector<Request> submitted_ MS_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ MS_GUARDED_BY(mutex_);
  std::vector<Completion> completions_ MS_GUARDED_BY(mutex_);
  std::int64_t room_ MS_GUARDED_BY(mutex_);
  std::string why_stopped_ MS_GUARDED_BY(mutex_);
  bool is_ready_ MS_GUARDED_BY(mutex_) = false;  // the launched server has been
  EngineStats stats_ MS_GUARDED_BY(mutex_);
  TaskScope thread_;  // last: joined before the rest goes
};

}  // namespace

Result<std::unique_ptr<Engine>> MakeOpenAiEngine(
    OpenAiEngineOptions options, std::stop_token stop
) {
  const std::int64_t most = ConnectionsMax() / std::max<std::int64_t>(options.num_engines, 1);
  if (options.max_in_flight > most && options.say) {
    options.say(fmt::format(
        "the limit of open files allows {} requests at a time, not {}: `ulimit -n` raises it",
        most,
        options.max_in_flight
    ));
  }
  const bool is_launched = options.launch.has_value();
  auto engine = std::make_unique<OpenAiEngine>(std::move(options), most);
  if (is_launched) MS_RETURN_NOT_OK(engine->WaitUntilReady(std::move(stop)));
  return engine;
}

}  // namespace millstream
