// SPDX-License-Identifier: Apache-2.0
// The child processes of the engine's tests:
//   scripted SCRIPT ROOM                    an engine that answers, and dies as it is told
//   native SCRIPT MODEL COMPUTE MEMORY      our own engine, which dies as it is told
//   die SCRIPT RECORD HOW                   dies with a request in flight, as recorded
//   chain RECORD                            the same where a handler of SIGSEGV exits with 42
//   drive SCRIPT RECORD DONE HOW            a job's driver: see Drive()
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "base/task_scope.h"
#include "engine/engine_host.h"
#include "engine/flight_recorder.h"
#include "engine/guarded_engine.h"
#include "engine/hosted_engine.h"
#include "engine/language_model.h"
#include "engine/native_engine.h"
#include "engine/recorded_engine.h"
#include "engine/scripted_engine.h"
#include "engine/test_child/script.h"
#include "text/grammar.h"

// NOLINTBEGIN(bugprone-reserved-identifier): the sanitizers' own names
// The tests' deaths are to be the kernel's, not a sanitizer's report.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0";
}
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() {
  return "handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0";
}
// NOLINTEND(bugprone-reserved-identifier)

namespace millstream {
namespace {

// Deeper than any stack.
int Overflow(int depth) {
  volatile int frame[256] = {depth};
  return depth > 1 << 30 ? 0 : Overflow(depth + 1) + frame[depth % 256];
}

void Fault() {
  void* const page = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *static_cast<volatile char*>(page) = 1;
}

void Die(std::int32_t how, ChildScript& script) {
  switch (how) {
    case kSegv:
      return Fault();
    case kAbort:
      std::abort();
    case kHang:
      script.is_stalled = true;
      while (true) pause();
    case kBadAlloc:
      throw std::bad_alloc();
    case kOomKill:
      ++script.oom_kills;
      raise(SIGKILL);
      return;
    case kExit3:
      _exit(3);
    case kStackOverflow:
      Overflow(0);
      return;
    case kKillItself:
      raise(SIGKILL);
      return;
    default:
      return;
  }
}

// Counts an answer, and sends itself the signal that is due at it.
void CountAnswer(ChildScript& script) {
  const std::int64_t asked = ++script.asked;
  const int next = script.next_event;
  if (next >= script.num_events || asked < script.events[next].at) return;
  ++script.next_event;
  const int signal = script.events[next].signal;
  script.is_stalled = signal == SIGSTOP;
  raise(signal);
}

/// Dies when it has answers to give.
class MortalEngine final : public Engine {
 public:
  MortalEngine(std::unique_ptr<Engine> inner, ChildScript& script)
      : inner_(std::move(inner)), script_(script) {}

  Room room() const override { return inner_->room(); }
  void Submit(Request request) override { inner_->Submit(std::move(request)); }
  void Cancel(RequestId id) override { inner_->Cancel(id); }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    auto completions = inner_->Poll(deadline, std::move(stop));
    if (completions.ok()) {
      for (std::size_t i = 0; i < completions->size(); ++i) CountAnswer(script_);
    }
    return completions;
  }
  EngineStats stats() const override { return inner_->stats(); }

 private:
  const std::unique_ptr<Engine> inner_;
  ChildScript& script_;
};

/// Wants more memory than there is once too many requests are open. Holds requests back until as
/// many have come as the script waits for.
class HungryEngine final : public Engine {
 public:
  HungryEngine(std::unique_ptr<Engine> inner, ChildScript& script)
      : inner_(std::move(inner)), script_(script) {}

  Room room() const override { return inner_->room(); }
  void Submit(Request request) override {
    const std::int64_t open = ++open_;
    if (script_.too_many > 0 && open >= script_.too_many) is_sated_ = false;
    held_.push_back(std::move(request));
    if (++script_.submitted < script_.wait_for) return;
    for (Request& held : held_) inner_->Submit(std::move(held));  // in order: the first is first
    held_.clear();
  }
  void Cancel(RequestId id) override { inner_->Cancel(id); }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    if (!is_sated_) return Status::OutOfMemory("too many requests");
    auto completions = inner_->Poll(deadline, std::move(stop));
    if (completions.ok()) open_ -= std::ssize(*completions);
    return completions;
  }
  EngineStats stats() const override { return inner_->stats(); }

 private:
  const std::unique_ptr<Engine> inner_;
  ChildScript& script_;
  std::vector<Request> held_;  // the submitting thread's
  std::atomic<std::int64_t> open_{0};
  std::atomic<bool> is_sated_{true};
};

Completion Answer(const Request& request, ChildScript& script) {
  CountAnswer(script);
  if (script.dies_of_all) Die(kSegv, script);
  if (!request.prompt_tokens.empty()) Die(request.prompt_tokens.front(), script);
  return ScriptedAnswer(request);
}

int Scripted(const std::string& path, std::int64_t room) {
  ChildScript* const script = ChildScript::Map(path, false);
  if (script == nullptr) return 9;
  script->is_stalled = false;
  script->pid = getpid();
  if (script->dies_at_start) return 4;
  const Status served = HostEngine([&]() -> Result<ServedEngine> {
    ScriptedEngineOptions options;
    options.max_requests = room;
    options.answer = [script](const Request& request) { return Answer(request, *script); };
    ServedEngine served_engine;
    served_engine.engine =
        std::make_unique<HungryEngine>(MakeScriptedEngine(std::move(options)), *script);
    return served_engine;
  });
  return served.ok() ? 0 : 1;
}

int Native(const std::vector<std::string>& arguments) {
  ChildScript* const script = ChildScript::Map(arguments[2], false);
  script->is_stalled = false;
  const Status served = HostEngine([&]() -> Result<ServedEngine> {
    MS_ASSIGN_OR_RETURN(const auto model, OpenLanguageModel(arguments[3], ""));
    NativeEngineOptions options;
    options.compute = ComputeFromName(arguments[4]);
    options.threads = 2;
    options.memory_bytes = std::stoull(arguments[5]);
    MS_ASSIGN_OR_RETURN(ServedEngine native, ServeNative(model, options));
    native.engine = std::make_unique<MortalEngine>(std::move(native.engine), *script);
    return native;
  });
  return served.ok() ? 0 : 1;
}

int DieRecorded(const std::string& script_path, const std::string& record, std::int32_t how) {
  ChildScript* const script = ChildScript::Map(script_path, false);
  const auto recorder = FlightRecorder::Open(record, {}).MoveValueUnsafe();
  recorder->CatchFatalSignals();
  recorder->Enter({{1, 2}, "0:2 answer 0"});
  recorder->Enter({{1, 3}, "0:3 answer 0"});
  recorder->Leave({1, 2});
  TaskScope scope;  // on a thread that is not main
  scope.Spawn([&](std::stop_token) {
    Die(how, *script);
    return Status::OK();
  });
  return scope.Join().ok() ? 0 : 1;
}

int Chain(const std::string& record) {
  struct sigaction action{};
  action.sa_handler = [](int) { _exit(42); };
  sigaction(SIGSEGV, &action, nullptr);
  const auto recorder = FlightRecorder::Open(record, {}).MoveValueUnsafe();
  recorder->CatchFatalSignals();
  recorder->Enter({{1, 3}, "0:3 answer 0"});
  Fault();
  return 0;
}

// One life of a job's driver over a hundred requests with the engine in its own process: number 17
// is deadly. What is done is noted in a file, and not done again in the next life.
int Drive(const std::vector<std::string>& arguments) {
  const std::string &script_path = arguments[2], &record_path = arguments[3], &done = arguments[4];
  ChildScript* const script = ChildScript::Map(script_path, false);
  const FlightRecord record = FlightRecorder::Read(record_path).ValueOrDie();
  const auto recorder = FlightRecorder::Open(record_path, record.suspects).MoveValueUnsafe();
  recorder->CatchFatalSignals();
  ScriptedEngineOptions options;
  options.per_poll = 3;
  options.is_due = [script](const Request& request) {  // the polling thread must not hang itself
    const bool hangs = request.prompt_tokens.front() == kHang;
    if (hangs) script->is_stalled = true;
    return !hangs;
  };
  options.answer = [script](const Request& request) { return Answer(request, *script); };
  RecordedEngineOptions watch;
  watch.hang_limit = std::chrono::milliseconds(50);  // of a clock that stands but for a hang
  watch.now = [script, now = std::chrono::steady_clock::time_point{}]() mutable {
    return now += std::chrono::seconds(script->is_stalled ? 10 : 0);
  };
  const auto make_child = [&]() {
    HostedEngineOptions hosted;
    hosted.command = {"/proc/self/exe", "scripted", script_path, "64"};
    hosted.tick = std::chrono::milliseconds(1);
    hosted.start_limit = std::chrono::hours(1'000'000);
    hosted.now = watch.now;
    return MakeHostedEngine(std::move(hosted));
  };
  const auto engine = MakeGuardedEngine(
      MakeRecordedEngine(MakeScriptedEngine(std::move(options)), *recorder, watch),
      *recorder,
      record.suspects,
      make_child
  );
  std::set<RequestId> is_done;
  std::ifstream before(done);
  for (std::string line; std::getline(before, line);) is_done.insert(std::stoll(line));
  std::ofstream after(done, std::ios::app);
  for (RequestId id = 0; id < 100; ++id) {
    if (is_done.contains(id)) continue;
    Request request;
    request.id = id;
    request.name = "0:" + std::to_string(id);
    request.prompt_tokens = {id == 17 ? std::stoi(arguments[5]) : 5};
    request.random = {1, static_cast<std::uint64_t>(id)};
    engine->Submit(std::move(request));
  }
  for (std::size_t count = is_done.size(); count < 100;) {
    const auto completions = engine->Poll(Deadline::max(), {});
    if (!completions.ok()) return 7;
    for (const Completion& one : *completions) {
      after << one.id << " " << one.error_code << one.text << "\n" << std::flush;
    }
    count += completions->size();
  }
  return 0;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.size() == 4 && arguments[1] == "scripted") {
    return Scripted(arguments[2], std::stoll(arguments[3]));
  }
  if (arguments.size() == 6 && arguments[1] == "native") return Native(arguments);
  if (arguments.size() == 5 && arguments[1] == "die") {
    return DieRecorded(arguments[2], arguments[3], std::stoi(arguments[4]));
  }
  if (arguments.size() == 3 && arguments[1] == "chain") return Chain(arguments[2]);
  if (arguments.size() == 6 && arguments[1] == "drive") return Drive(arguments);
  return 8;
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  return millstream::Main(std::vector<std::string>(argv, argv + argc));
}
