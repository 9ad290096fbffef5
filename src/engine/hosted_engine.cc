// SPDX-License-Identifier: Apache-2.0
#include "engine/hosted_engine.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "base/task_scope.h"
#include "engine/bisection.h"
#include "engine/child_process.h"
#include "engine/frames.h"
#include "engine/machine.h"
#include "engine/watchdog.h"
#include "engine/wire.h"

namespace millstream {
namespace {

constexpr std::size_t kMaxInFlight = 256;  // so that a death has no more suspects
constexpr int kStrikesForCanary = 5;
constexpr int kStrikesOut = 10;
constexpr std::size_t kMaxWitnessTokens = 4096;
constexpr RequestId kCanary = std::numeric_limits<RequestId>::min();

/// Why a child died. Without a code nobody is to blame.
struct Cause {
  std::string code;  // of docs/errors.md
  std::string text;
};

/// What the engine's face and its thread share. Thread-safe.
class Mailbox {
 public:
  Mailbox() : wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { MS_CHECK(wake_ >= 0); }
  ~Mailbox() { close(wake_); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // The face.
  Room room() const {
    MutexLock lock(mutex_);
    return {
        std::max<std::int64_t>(0, room_.requests - std::ssize(open_)),
        std::max<std::int64_t>(0, room_.tokens - open_tokens_)
    };
  }
  void Submit(Request request) {
    {
      MutexLock lock(mutex_);
      const auto tokens = static_cast<std::int64_t>(request.prompt_tokens.size());
      open_[request.id] = tokens;
      open_tokens_ += tokens;
      submitted_.push_back(std::move(request));
    }
    Wake();
  }
  void Cancel(RequestId id) {
    {
      MutexLock lock(mutex_);
      cancelled_.push_back(id);
    }
    Wake();
  }
  Result<std::vector<Completion>> Poll(Deadline deadline, const std::stop_token& stop) {
    MutexLock lock(mutex_);
    news_.wait_until(lock, stop, deadline, [this]() MS_REQUIRES(mutex_) {
      return !finished_.empty() || !death_.ok();
    });
    if (finished_.empty() && !death_.ok()) return death_;
    return std::exchange(finished_, {});
  }
  EngineStats stats() const {
    MutexLock lock(mutex_);
    return stats_;
  }
  Status WaitUntilReady() {
    MutexLock lock(mutex_);
    news_.wait(lock, [this]() MS_REQUIRES(mutex_) { return is_ready_ || !death_.ok(); });
    return death_;
  }
  void Wake() const {
    const std::uint64_t one = 1;
    (void)!write(wake_, &one, sizeof one);  // a full counter wakes as well
  }

  // The thread.
  int wake() const { return wake_; }
  std::pair<std::vector<Request>, std::vector<RequestId>> Take() {
    std::uint64_t count = 0;
    (void)!read(wake_, &count, sizeof count);
    MutexLock lock(mutex_);
    return {std::exchange(submitted_, {}), std::exchange(cancelled_, {})};
  }
  void SetReady(Room room) {
    MutexLock lock(mutex_);
    room_ = room;
    is_ready_ = true;
    news_.notify_all();
  }
  void SetDeath(Status death) {
    MutexLock lock(mutex_);
    death_ = std::move(death);
    news_.notify_all();
  }
  void Publish(const EngineStats& stats, std::vector<Completion> completions) {
    MutexLock lock(mutex_);
    stats_ = stats;
    for (Completion& completion : completions) {
      const auto found = open_.find(completion.id);
      MS_CHECK(found != open_.end());
      open_tokens_ -= found->second;
      open_.erase(found);
      finished_.push_back(std::move(completion));
    }
    if (!completions.empty()) news_.notify_all();
  }

 private:
  const int wake_;  // an eventfd: the thread waits for it and for its child at once

  mutable Mutex mutex_;
  std::condition_variable_any news_;
  std::vector<Request> submitted_ MS_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ MS_GUARDED_BY(mutex_);
  std::vector<Completion> finished_ MS_GUARDED_BY(mutex_);
  std::map<RequestId, std::int64_t> open_ MS_GUARDED_BY(mutex_);  // prompt tokens
  std::int64_t open_tokens_ MS_GUARDED_BY(mutex_) = 0;
  Room room_ MS_GUARDED_BY(mutex_);  // when nothing is open
  EngineStats stats_ MS_GUARDED_BY(mutex_);
  bool is_ready_ MS_GUARDED_BY(mutex_) = false;
  Status death_ MS_GUARDED_BY(mutex_) = Status::OK();
};

/// One life of the child.
struct Child {
  Child(std::unique_ptr<ChildProcess> its_process, Watchdog::Duration hang_limit)
      : process(std::move(its_process)), frames(process->socket()), watchdog(hang_limit) {}

  std::unique_ptr<ChildProcess> process;
  FrameReader frames;
  std::string unsent;
  Watchdog watchdog;
  Watchdog::TimePoint started;
  std::int64_t oom_kills_before = 0;
  bool is_ready = false;
  EngineStats stats;
  std::optional<Cause> cause;                  // known before its end
  std::optional<Watchdog::TimePoint> aborted;  // by the watchdog
  std::vector<RequestId> in_flight;            // in order of submission
};

/// The child and all that is decided about it. Lives on one thread.
class Host {
 public:
  Host(const HostedEngineOptions& options, Mailbox& mailbox)
      : options_(options), mailbox_(mailbox) {
    canary_.prompt_tokens = {0};
    canary_.sampling.max_tokens = 1;
    canary_.sampling.temperature = 0;
  }

  /// Works until `stop` is requested or the engine is broken.
  Status Run(const std::stop_token& stop) {
    const std::stop_callback wake(stop, [this] { mailbox_.Wake(); });
    Status status = Status::OK();
    while (status.ok() && !stop.stop_requested()) {
      status = Step();
      Publish();
    }
    return status;
  }

 private:
  struct Entry {
    Request request;
    bool is_cancelled = false;
  };

  Watchdog::TimePoint Now() const {
    return options_.now ? options_.now() : std::chrono::steady_clock::now();
  }
  std::int64_t OomKillsNow() const {
    return options_.oom_kills ? options_.oom_kills() : OomKills();
  }

  Status Step() {
    TakeMail();
    if (!child_) MS_RETURN_NOT_OK(Start());
    Feed();
    Wait();
    if (!Read()) return End();
    Watch();
    return Status::OK();
  }

  void TakeMail() {
    auto [submitted, cancelled] = mailbox_.Take();
    for (Request& request : submitted) {
      const RequestId id = request.id;
      queue_.push_back(id);
      MS_CHECK(open_.emplace(id, Entry{std::move(request)}).second);
    }
    for (const RequestId id : cancelled) {
      const auto found = open_.find(id);
      if (found == open_.end()) continue;
      found->second.is_cancelled = true;
      if (child_ && std::find(child_->in_flight.begin(), child_->in_flight.end(), id) !=
                        child_->in_flight.end()) {
        SendCancel(id);
      }
    }
  }

  Status Start() {
    if (strikes_ >= kStrikesOut) return EngineBroken("the engine does not live: " + last_death_);
    MS_ASSIGN_OR_RETURN(auto process, ChildProcess::Spawn(options_.command));
    child_ = std::make_unique<Child>(std::move(process), options_.hang_limit);
    child_->started = Now();
    child_->oom_kills_before = OomKillsNow();
    return Status::OK();
  }

  // Gives the child what it may have.
  void Feed() {
    if (!child_->is_ready || child_->cause) return;
    std::vector<RequestId>& in_flight = child_->in_flight;
    if (strikes_ >= kStrikesForCanary) {
      if (in_flight.empty()) Send(kCanary, canary_);
    } else if (bisection_.active()) {
      for (const RequestId id : bisection_.group()) {
        const bool is_there = std::find(in_flight.begin(), in_flight.end(), id) != in_flight.end();
        if (!is_there) Send(id, open_.at(id).request);
      }
    } else {
      while (in_flight.size() < limit_ && !queue_.empty()) {
        Send(queue_.front(), open_.at(queue_.front()).request);
        queue_.pop_front();
      }
    }
  }

  void Send(RequestId id, const Request& request) {
    WireWriter head;
    head.U8(static_cast<std::uint8_t>(FrameKind::kSubmit));
    head.I64(id);
    Request sent = request;
    sent.id = id;
    AppendFrame(head.Take() + EncodeRequest(sent), child_->unsent);
    child_->in_flight.push_back(id);
    const auto found = open_.find(id);
    if (found != open_.end() && found->second.is_cancelled) SendCancel(id);
  }

  void SendCancel(RequestId id) {
    WireWriter frame;
    frame.U8(static_cast<std::uint8_t>(FrameKind::kCancel));
    frame.I64(id);
    AppendFrame(frame.Take(), child_->unsent);
  }

  // Writes what the socket takes, and waits for news: of the child, of the face, of time.
  void Wait() {
    std::string& unsent = child_->unsent;
    const int socket = child_->process->socket();
    std::size_t sent = 0;
    while (sent < unsent.size()) {
      const ssize_t size =
          send(socket, unsent.data() + sent, unsent.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (size <= 0) break;  // full; or closed, which reading finds too
      sent += static_cast<std::size_t>(size);
    }
    unsent.erase(0, sent);
    const auto events = static_cast<short>(unsent.empty() ? POLLIN : POLLIN | POLLOUT);
    std::array<pollfd, 2> fds = {{{socket, events, 0}, {mailbox_.wake(), POLLIN, 0}}};
    const bool must_look = !child_->is_ready || !child_->in_flight.empty();
    poll(fds.data(), fds.size(), must_look ? static_cast<int>(options_.tick.count()) : -1);
  }

  // Takes what the child says. False if that was all.
  bool Read() {
    FrameReader::Arrival arrival{};
    do {
      arrival = child_->frames.Receive(/*wait=*/false);
      while (true) {
        auto next = child_->frames.Next();
        Status status = next.status();
        const std::optional<std::string> frame = std::move(next).ValueOr("");
        if (!frame) break;
        if (status.ok()) status = Take(*frame);
        if (child_->cause) return false;
        if (status.ok()) continue;
        child_->cause = {"crash", "it says nonsense: " + status.message()};
        return false;
      }
    } while (arrival == FrameReader::Arrival::kBytes);
    return arrival == FrameReader::Arrival::kNothingYet;
  }

  Status Take(std::string_view frame) {
    WireReader in(frame);
    switch (static_cast<FrameKind>(in.Below(kFrameKinds))) {
      case FrameKind::kReady: {
        const Room room = ReadRoom(in);
        MS_RETURN_NOT_OK(in.Finish());
        child_->is_ready = true;
        mailbox_.SetReady(room);
        return Status::OK();
      }
      case FrameKind::kReport: {
        child_->stats = ReadStats(in);
        for (std::uint32_t left = in.U32(); left > 0 && !in.failed(); --left) {
          const std::string bytes = in.Text();
          if (in.failed()) break;
          MS_ASSIGN_OR_RETURN(Completion completion, DecodeCompletion(bytes));
          Finish(std::move(completion));
        }
        return in.Finish();
      }
      case FrameKind::kFailed: {
        const bool is_oom = in.Bool();
        const std::string message = in.Text();
        MS_RETURN_NOT_OK(in.Finish());
        child_->cause = {is_oom ? "oom" : "crash", message};
        return Status::OK();
      }
      case FrameKind::kSubmit:
      case FrameKind::kCancel:
        break;
    }
    return Status::Invalid("a frame for a child");
  }

  void Finish(Completion completion) {
    const RequestId id = completion.id;
    std::vector<RequestId>& in_flight = child_->in_flight;
    const auto found = std::find(in_flight.begin(), in_flight.end(), id);
    if (found == in_flight.end()) return;
    in_flight.erase(found);
    strikes_ = 0;
    if (id == kCanary) return;
    bisection_.Finish(id);
    GrowLimit();
    auto entry = open_.extract(id);
    KeepWitness(entry.mapped().request, completion);
    ++totals_.requests_finished;
    finished_.push_back(std::move(completion));
  }

  // The first request that finished becomes the canary.
  void KeepWitness(Request& request, const Completion& completion) {
    const bool is_good =
        completion.reason != FinishReason::kError && completion.reason != FinishReason::kCancelled;
    // What took no step of the model says nothing of it.
    const bool was_computed = completion.completion_tokens > 0 || !completion.scores.empty();
    if (has_witness_ || !is_good || !was_computed) return;
    if (request.prompt_tokens.size() > kMaxWitnessTokens) return;
    canary_ = std::move(request);
    has_witness_ = true;
  }

  // One more at once for each time that as many as may run have finished.
  void GrowLimit() {
    if (limit_ == kMaxInFlight || bisection_.active() || ++finished_at_limit_ < limit_) return;
    ++limit_;
    finished_at_limit_ = 0;
  }

  // Kills a child that hangs.
  void Watch() {
    const auto now = Now();
    if (!child_->is_ready) {
      if (now - child_->started <= options_.start_limit) return;
      child_->cause = {"hang", "it is not ready in time"};
      child_->process->Signal(SIGKILL);
    } else if (const auto aborted = child_->aborted) {
      if (now - *aborted > options_.grace) child_->process->Signal(SIGKILL);
    } else if (child_->watchdog.IsHung(now, !child_->in_flight.empty(), child_->stats)) {
      child_->aborted = now;
      child_->process->Signal(SIGABRT);
    }
  }

  Cause FindCause() {
    const ChildProcess::Exit exit = child_->process->Reap();
    if (child_->aborted) return {"hang", "no progress within its time"};
    if (const auto known = child_->cause) return *known;
    const FlightRecord record = child_->process->Record();
    if (record.cause == FlightCause::kSignal) return {"crash", record.Describe()};
    if (exit.signal == 0 && exit.code == 0) return {"", "it ended"};
    if (exit.signal == 0) return {"crash", "exit code " + std::to_string(exit.code)};
    if (exit.signal == SIGKILL && OomKillsNow() > child_->oom_kills_before) {
      return {"oom", "the kernel killed it for want of memory"};
    }
    return {IsOfItsOwnMaking(exit.signal) ? "crash" : "", SignalName(exit.signal)};
  }

  // The child has died: finds out why, and who is suspect.
  Status End() {
    const Cause cause = FindCause();
    const std::unique_ptr<Child> child = std::move(child_);
    const std::int64_t finished = totals_.requests_finished;  // counted as they came
    totals_ += child->stats;
    totals_.requests_finished = finished;
    ++totals_.restarts;
    last_death_ = cause.text;
    if (!child->is_ready) {
      ++strikes_;
      if (totals_.restarts > 1) return Status::OK();
      return Status::IOError("the engine's process does not start: ", cause.text);
    }
    const bool was_canary = !child->in_flight.empty() && child->in_flight.front() == kCanary;
    if (was_canary && !cause.code.empty()) {
      const char* of = has_witness_ ? "one that it had finished" : "a prompt of one token";
      return EngineBroken(
          std::string("the engine dies whatever the row, even of ") + of + ": " + cause.text
      );
    }
    if (!cause.code.empty()) {
      Accuse(child->in_flight, cause);
      return Status::OK();
    }
    ++strikes_;
    ++totals_.workers_lost;
    if (!was_canary && !bisection_.active()) {
      queue_.insert(queue_.begin(), child->in_flight.begin(), child->in_flight.end());
    }
    return Status::OK();
  }

  void Accuse(const std::vector<RequestId>& in_flight, const Cause& cause) {
    if (in_flight.empty() || !bisection_.active()) ++strikes_;
    if (in_flight.empty()) return;
    if (!bisection_.active() && cause.code == "oom") {
      limit_before_ = std::exchange(limit_, std::max<std::size_t>(1, in_flight.size() / 2));
      finished_at_limit_ = 0;
    }
    // Of a group, those not yet sent are suspects still.
    const auto condemned = bisection_.Die(bisection_.active() ? bisection_.group() : in_flight);
    if (!condemned) return;
    ++strikes_;
    if (cause.code == "oom") limit_ = limit_before_;  // it was this one, not how many there were
    ++(cause.code == "oom"    ? totals_.requests_out_of_memory
       : cause.code == "hang" ? totals_.requests_hung
                              : totals_.requests_crashed);
    open_.erase(*condemned);
    Completion completion;
    completion.id = *condemned;
    completion.reason = FinishReason::kError;
    completion.error_code = cause.code;
    completion.error_message = "the engine dies of this row alone: " + cause.text;
    completion.killed_engine = true;
    finished_.push_back(std::move(completion));
    ++totals_.requests_finished;
  }

  void Publish() {
    EngineStats stats = totals_;
    if (child_) stats += child_->stats;
    stats.requests_finished = totals_.requests_finished;
    mailbox_.Publish(stats, std::exchange(finished_, {}));
  }

  const HostedEngineOptions& options_;
  Mailbox& mailbox_;
  std::unique_ptr<Child> child_;
  std::map<RequestId, Entry> open_;
  std::deque<RequestId> queue_;  // of those in no child and not suspect
  Bisection bisection_;
  std::size_t limit_ = kMaxInFlight;         // in flight at once
  std::size_t limit_before_ = kMaxInFlight;  // the last death for want of memory
  std::size_t finished_at_limit_ = 0;
  // Deaths without a finished request since; while bisecting, those alone that condemn or that
  // nobody is to blame for.
  int strikes_ = 0;
  std::string last_death_;
  Request canary_;
  bool has_witness_ = false;
  std::vector<Completion> finished_;  // not yet published
  EngineStats totals_;                // of children that are gone
};

class HostedEngine final : public Engine {
 public:
  explicit HostedEngine(HostedEngineOptions options) : options_(std::move(options)) {
    loop_.Spawn([this](const std::stop_token& stop) {
      Status status = Status::OK();
      try {
        status = Host(options_, mailbox_).Run(stop);
      } catch (const std::exception& error) {
        status = Status::UnknownError("the engine's host failed: ", error.what());
      }
      if (!status.ok()) mailbox_.SetDeath(status);
      return status;
    });
  }

  Status WaitUntilReady() { return mailbox_.WaitUntilReady(); }

  Room room() const override { return mailbox_.room(); }
  void Submit(Request request) override { mailbox_.Submit(std::move(request)); }
  void Cancel(RequestId id) override { mailbox_.Cancel(id); }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    return mailbox_.Poll(deadline, stop);
  }
  EngineStats stats() const override { return mailbox_.stats(); }

 private:
  const HostedEngineOptions options_;
  Mailbox mailbox_;
  TaskScope loop_;  // last: ends before what it uses
};

}  // namespace

Result<std::unique_ptr<Engine>> MakeHostedEngine(HostedEngineOptions options) {
  auto engine = std::make_unique<HostedEngine>(std::move(options));
  MS_RETURN_NOT_OK(engine->WaitUntilReady());
  return engine;
}

}  // namespace millstream
