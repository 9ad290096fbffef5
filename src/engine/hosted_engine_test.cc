// SPDX-License-Identifier: Apache-2.0
#include "engine/hosted_engine.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <bit>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "base/torture.h"
#include "engine/native_engine.h"
#include "engine/test_child/script.h"
#include "engine/testing.h"
#include "engine/wire.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;
using Answers = std::map<RequestId, Completion>;

Request MakeRequest(RequestId id, std::int32_t token = 5) {
  Request request;
  request.id = id;
  request.name = "0:" + std::to_string(id);
  request.prompt_tokens = {token};
  request.random = {1, static_cast<std::uint64_t>(id)};
  return request;
}

class HostedEngineTest : public testing::Test {
 protected:
  HostedEngineTest()
      : path_(
            testing::TempDir() + "/hosted_engine_" + std::to_string(getpid()) + "_" +
            testing::UnitTest::GetInstance()->current_test_info()->name()
        ),
        script_(ChildScript::Map(path_, true)) {}
  ~HostedEngineTest() override { fs::remove(path_); }

  /// Time stands still but for a child that says that it hangs.
  HostedEngineOptions Options(int room = 64) {
    HostedEngineOptions options;
    options.command = {MS_TEST_CHILD, "scripted", path_, std::to_string(room)};
    options.tick = std::chrono::milliseconds(1);
    options.start_limit = hours(1'000'000);
    options.now = [this] {
      if (script_->is_stalled) now_ += std::chrono::seconds(10);
      return now_;
    };
    options.oom_kills = [this] { return script_->oom_kills.load(); };
    return options;
  }
  std::unique_ptr<Engine> Make(int room = 64) {
    return MakeHostedEngine(Options(room)).MoveValueUnsafe();
  }

  /// Submits as there is room, until all have finished; each must finish once.
  static Answers Finish(Engine& engine, const std::vector<Request>& requests) {
    Answers answers;
    auto next = requests.begin();
    while (answers.size() < requests.size()) {
      for (auto room = engine.room().requests; room > 0 && next != requests.end(); --room) {
        engine.Submit(*next++);
      }
      auto completions = engine.Poll(Deadline::max(), {});
      if (!completions.ok()) {
        ADD_FAILURE() << completions.status();
        return answers;
      }
      for (Completion& completion : *completions) {
        const RequestId id = completion.id;
        EXPECT_TRUE(answers.emplace(id, std::move(completion)).second) << "twice: " << id;
      }
    }
    return answers;
  }

  static std::vector<Request> Good(RequestId count) {
    std::vector<Request> requests;
    requests.reserve(static_cast<std::size_t>(count));
    for (RequestId id = 0; id < count; ++id) requests.push_back(MakeRequest(id));
    return requests;
  }

  /// Expects the scripted answer of all but the condemned ones.
  static void ExpectAnswers(
      const Answers& answers,
      const std::vector<Request>& requests,
      const std::map<RequestId, std::string>& condemned = {}
  ) {
    ASSERT_EQ(answers.size(), requests.size());
    for (const Request& request : requests) {
      const Completion& completion = answers.at(request.id);
      const auto found = condemned.find(request.id);
      if (found != condemned.end()) {
        EXPECT_EQ(completion.reason, FinishReason::kError);
        EXPECT_EQ(completion.error_code, found->second) << completion.error_message;
      } else {
        EXPECT_EQ(completion.reason, FinishReason::kStop) << completion.error_message;
        EXPECT_EQ(completion.text, ScriptedAnswer(request).text);
        EXPECT_EQ(completion.tokens, ScriptedAnswer(request).tokens);
      }
    }
  }

  const std::string path_;
  ChildScript* const script_;
  std::chrono::steady_clock::time_point now_{hours(1000)};  // the engine's thread's
};

TEST_F(HostedEngineTest, AnswersAsTheEngineInItWould) {
  const auto engine = Make();
  EXPECT_EQ(engine->room().requests, 64);
  const auto requests = Good(500);
  ExpectAnswers(Finish(*engine, requests), requests);
  EXPECT_EQ(engine->room().requests, 64);
  EXPECT_EQ(engine->stats().requests_finished, 500);
  EXPECT_EQ(engine->stats().prompt_tokens, 500);
  EXPECT_EQ(engine->stats().completion_tokens, 1000);
  EXPECT_EQ(engine->stats().restarts, 0);
}

TEST_F(HostedEngineTest, ARequestThatKillsItIsCondemnedAlone) {
  const struct {
    Deadly how;
    std::string code, message;
  } cases[] = {
      {kSegv, "crash", "SIGSEGV (stack "},
      {kStackOverflow, "crash", "SIGSEGV (stack "},
      {kAbort, "crash", "SIGABRT (stack "},
      {kExit3, "crash", "exit code 3"},
      {kHang, "hang", "no progress within its time"},
      {kBadAlloc, "oom", "engine died: out of memory"},
      {kOomKill, "oom", "the kernel killed it for want of memory"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.how);
    const auto engine = Make();
    auto requests = Good(64);
    requests[40].prompt_tokens = {one.how};
    const Answers answers = Finish(*engine, requests);
    ExpectAnswers(answers, requests, {{40, one.code}});
    const std::string& message = answers.at(40).error_message;
    EXPECT_NE(message.find("the engine dies of this row alone: " + one.message), std::string::npos)
        << message;
    const EngineStats stats = engine->stats();
    EXPECT_EQ(stats.requests_crashed, one.code == "crash");
    EXPECT_EQ(stats.requests_hung, one.code == "hang");
    EXPECT_EQ(stats.requests_out_of_memory, one.code == "oom");
    EXPECT_EQ(stats.workers_lost, 0);
    EXPECT_EQ(stats.requests_finished, 64);
    EXPECT_LE(stats.restarts, 6 + 2);
  }
}

TEST_F(HostedEngineTest, TheSameCrashHasTheSameStackHash) {
  std::set<std::string> messages;
  for (int round = 0; round < 3; ++round) {
    const auto engine = Make();
    messages.insert(Finish(*engine, {MakeRequest(0, kSegv)}).at(0).error_message);
  }
  EXPECT_EQ(messages.size(), 1U);
}

TEST_F(HostedEngineTest, BisectionCostsLog2PlusTwoRestartsAtWorst) {
  for (const int room : {1, 2, 16, 128, 256}) {
    auto requests = Good(room);
    requests[0].prompt_tokens = {kSegv};  // in the half that is tried first, each time
    script_->submitted = 0;
    script_->wait_for = room;  // all are in flight at once
    const auto engine = Make(room);
    ExpectAnswers(Finish(*engine, requests), requests, {{0, "crash"}});
    EXPECT_EQ(engine->stats().restarts, std::bit_width(static_cast<unsigned>(room)) - 1 + 2);
  }
}

TEST_F(HostedEngineTest, AKilledChildIsNobodysFault) {
  script_->num_events = 3;
  for (int i = 0; i < 3; ++i) script_->events[i] = {20LL * (i + 1), i == 1 ? SIGTERM : SIGKILL};
  const auto engine = Make();
  const auto requests = Good(200);
  ExpectAnswers(Finish(*engine, requests), requests);
  EXPECT_EQ(engine->stats().restarts, 3);
  EXPECT_EQ(engine->stats().workers_lost, 3);
  EXPECT_EQ(engine->stats().requests_crashed, 0);
}

TEST_F(HostedEngineTest, AStoppedChildHangsAndItsRequestsAreExonerated) {
  script_->num_events = 1;
  script_->events[0] = {10, SIGSTOP};
  const auto engine = Make();
  const auto requests = Good(100);
  ExpectAnswers(Finish(*engine, requests), requests);
  EXPECT_EQ(engine->stats().restarts, 1);
  EXPECT_EQ(engine->stats().requests_hung, 0);
}

TEST_F(HostedEngineTest, WantOfMemoryLetsFewerRunAtOnce) {
  script_->too_many = 10;
  const auto engine = Make();
  const auto requests = Good(2000);
  ExpectAnswers(Finish(*engine, requests), requests);
  EXPECT_EQ(engine->stats().requests_out_of_memory, 0);
  EXPECT_GT(engine->stats().restarts, 0);
  std::cout << "restarts for want of memory: " << engine->stats().restarts << "\n";
}

TEST_F(HostedEngineTest, ACanaryTellsABrokenEngine) {
  const auto engine = Make();
  const auto good = Good(3);
  ExpectAnswers(Finish(*engine, good), good);
  script_->dies_of_all = true;
  for (RequestId id = 10; id < 60; ++id) engine->Submit(MakeRequest(id));
  std::size_t condemned = 0;
  Status death = Status::OK();
  while (death.ok()) {
    auto completions = engine->Poll(Deadline::max(), {});
    if (completions.ok()) condemned += completions->size();
    death = completions.status();
  }
  EXPECT_TRUE(IsEngineBroken(death)) << death;
  EXPECT_EQ(
      death.message().find("the engine dies whatever the row, even of one that it had finished: "),
      0U
  ) << death;
  EXPECT_LE(condemned, 4U);
  EXPECT_FALSE(IsEngineBroken(Status::IOError("")));
  EXPECT_FALSE(engine->Poll(Deadline::max(), {}).ok());  // for good
}

TEST_F(HostedEngineTest, ACanaryThatLivesLetsTheRowsTakeTheBlame) {
  std::vector<Request> requests;
  std::map<RequestId, std::string> condemned;
  for (RequestId id = 0; id < 20; ++id) {
    requests.push_back(MakeRequest(id, kSegv));
    condemned[id] = "crash";
  }
  const auto engine = Make(4);
  ExpectAnswers(Finish(*engine, requests), requests, condemned);
  EXPECT_EQ(engine->stats().requests_crashed, 20);
}

TEST_F(HostedEngineTest, AChildThatIsKilledAllTheTimeEndsInAStatus) {
  script_->num_events = ChildScript::kMaxEvents;
  for (auto& event : script_->events) event = {1, SIGKILL};
  const auto engine = Make();
  engine->Submit(MakeRequest(1));
  const Status death = engine->Poll(Deadline::max(), {}).status();
  EXPECT_EQ(death.message(), "the engine does not live: SIGKILL");
  EXPECT_TRUE(IsEngineBroken(death));
}

TEST_F(HostedEngineTest, AChildThatDoesNotStartIsSaidAtOnce) {
  script_->dies_at_start = true;
  EXPECT_EQ(
      MakeHostedEngine(Options()).status().message(),
      "the engine's process does not start: exit code 4"
  );
  HostedEngineOptions options = Options();
  options.command = {"no/such/program"};
  EXPECT_EQ(
      MakeHostedEngine(options).status().message(),
      "cannot start an engine's process: no/such/program: No such file or directory"
  );
}

TEST_F(HostedEngineTest, AChildThatSaysNonsenseIsNoEngine) {
  HostedEngineOptions options = Options();
  options.command = {"/bin/sh", "-c", "printf 'garbage!' >&0"};
  EXPECT_EQ(
      MakeHostedEngine(options).status().message(),
      "the engine's process does not start: it says nonsense: a frame of 1651663207 bytes"
  );
}

TEST_F(HostedEngineTest, CancelReachesTheChildAndPollEndsOnStopAndDeadline) {
  const auto engine = Make();
  EXPECT_TRUE(engine->Poll(Deadline::min(), {}).ValueOrDie().empty());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(engine->Poll(Deadline::max(), stop.get_token()).ValueOrDie().empty());
  engine->Cancel(99);  // unknown
  engine->Submit(MakeRequest(1));
  engine->Cancel(1);
  const auto completions = engine->Poll(Deadline::max(), {}).ValueOrDie();
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_NE(completions[0].reason, FinishReason::kError);
}

TEST_F(HostedEngineTest, EndsWithRequestsUnderWayAndLeavesNoChild) {
  script_->num_events = 1;
  script_->events[0] = {10, SIGSTOP};
  HostedEngineOptions options = Options();
  options.now = nullptr;
  {
    const auto engine = MakeHostedEngine(options).MoveValueUnsafe();
    for (const Request& request : Good(50)) engine->Submit(request);
  }
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

// Of our own engine, with signals under way and without.
TEST_F(HostedEngineTest, AnswersToTheByteAsTheEngineInThisProcess) {
  const std::string file = path_ + ".gguf";
  ASSERT_TRUE(WriteFile(file, TinyGguf({}).Build().first).ok());
  const auto model = OpenLanguageModel(file, "").ValueOrDie();
  const auto grammars =
      GrammarCompiler::Make(model->tokenizer, model->stop_tokens).MoveValueUnsafe();
  std::mt19937 random(7);
  std::vector<Request> requests;
  for (RequestId id = 0; id < 60; ++id) {
    Request request = MakeRequest(id);
    request.prompt_tokens.resize(id == 7 ? 500 : 1 + random() % 60);  // one does not fit
    for (std::int32_t& token : request.prompt_tokens) token = static_cast<int>(3 + random() % 250);
    request.sampling.max_tokens = static_cast<int>(1 + random() % 40);
    request.sampling.temperature = id % 3 == 0 ? 0 : 1;
    if (id % 4 == 1) request.sampling.stop = {"e", "th"};
    if (id % 5 == 0) {
      request.grammar = grammars->Compile(Grammar::Kind::kRegex, "[a-f]{3,30}").ValueOrDie();
    }
    requests.push_back(std::move(request));
  }
  for (const std::string compute : {"f32", "bf16"}) {
    NativeEngineOptions native;
    native.compute = compute == "f32" ? Compute::kF32 : Compute::kBF16;
    native.threads = 1;
    native.memory_bytes = 4 << 20;
    const auto here = MakeNativeEngine(model, native).MoveValueUnsafe();
    const Answers expected = Finish(*here, requests);
    EXPECT_EQ(expected.at(7).error_code, "context_overflow");
    for (const int deaths : {0, 4}) {
      script_->asked = 0;
      script_->next_event = 0;
      script_->num_events = deaths;
      for (int i = 0; i < deaths; ++i) {
        script_->events[i] = {10LL * (i + 1), std::array{SIGKILL, SIGSEGV}[random() % 2]};
      }
      HostedEngineOptions options = Options();
      options.command = {
          MS_TEST_CHILD, "native", path_, file, compute, std::to_string(native.memory_bytes)
      };
      const auto engine = MakeHostedEngine(options).MoveValueUnsafe();
      const Answers answers = Finish(*engine, requests);
      ASSERT_EQ(answers.size(), expected.size());
      for (const auto& [id, completion] : expected) {
        EXPECT_EQ(EncodeCompletion(answers.at(id)), EncodeCompletion(completion)) << id;
      }
      EXPECT_EQ(engine->stats().restarts, deaths);
    }
  }
  fs::remove(file);
}

// Suite 10 of docs/reliability.md.
TEST_F(HostedEngineTest, ExactlyThePoisonIsCondemnedInJobsOf10000) {
  const std::uint64_t seed = TortureSeed();
  std::mt19937_64 random(seed);
  const RequestId count = kIsSlow ? 1000 : 10000;
  constexpr int kRoom = 64;
  std::int64_t restarts = 0, poisoned = 0;
  const TortureClock clock(kIsSlow ? 4 : 20);
  std::int64_t jobs = 0;
  for (; clock.GoesOn(jobs) && !HasFailure(); ++jobs) {
    SCOPED_TRACE(fmt::format("MS_TORTURE_SEED {}, job {}", seed, jobs));
    const int num_poison =
        std::array{0, 1, 3, kIsSlow ? 8 : 50}[static_cast<std::size_t>(jobs % 4)];
    auto requests = Good(count);
    std::map<RequestId, std::string> condemned;
    while (std::ssize(condemned) < num_poison) {
      const auto id = static_cast<RequestId>(random() % requests.size());
      const Deadly how = std::array{kSegv, kHang, kBadAlloc, kOomKill}[random() % 4];
      requests[static_cast<std::size_t>(id)].prompt_tokens = {how};
      condemned[id] = how == kSegv ? "crash" : how == kHang ? "hang" : "oom";
    }
    const auto engine = Make(kRoom);
    ExpectAnswers(Finish(*engine, requests), requests, condemned);
    const EngineStats stats = engine->stats();
    EXPECT_LE(stats.restarts, num_poison * (6 + 2));
    EXPECT_EQ(stats.workers_lost, 0);
    EXPECT_EQ(
        stats.requests_crashed + stats.requests_hung + stats.requests_out_of_memory, num_poison
    );
    restarts += stats.restarts;
    poisoned += num_poison;
  }
  std::cout << jobs << " jobs of " << count << ": " << restarts << " restarts\n";
  ReportTorture("poison rows", seed, "poisoned", poisoned, HasFailure() ? 1 : 0);
}

// Suite 4 of docs/reliability.md.
TEST_F(HostedEngineTest, SurvivesSignalsAtRandom) {
  const std::uint64_t seed = TortureSeed();
  SCOPED_TRACE(fmt::format("MS_TORTURE_SEED {}", seed));
  std::mt19937_64 random(seed);
  const int events = kIsSlow ? 40 : 300;
  std::int64_t at = 0;
  for (int i = 0; i < events; ++i) {
    // Further apart than what a death asks for again: one is over before the next comes.
    at += 300 + static_cast<std::int64_t>(random() % 200);
    script_->events[i] = {at, std::array{SIGKILL, SIGSTOP, SIGSEGV, SIGABRT}[random() % 4]};
  }
  script_->num_events = events;
  const auto engine = Make();
  const auto requests = Good(at + 1);
  ExpectAnswers(Finish(*engine, requests), requests);
  EXPECT_EQ(script_->next_event, events);
  EXPECT_EQ(engine->stats().restarts, events);
  ReportTorture("engine, signals", seed, "signals", events, HasFailure() ? 1 : 0);
}

// The same from outside, at any instant: between two bytes of a frame too.
TEST_F(HostedEngineTest, SurvivesKillsAtAnyInstant) {
  const std::uint64_t seed = TortureSeed();
  SCOPED_TRACE(fmt::format("MS_TORTURE_SEED {}", seed));
  std::mt19937_64 random(seed);
  std::int64_t asked = 1, kills = 0;
  HostedEngineOptions options = Options();
  options.now = [&] {  // on the thread that reaps the child: its number is no other's
    if (script_->asked < asked) return now_;
    const pid_t pid = script_->pid.exchange(0);
    if (pid == 0) return now_;
    asked = script_->asked + 1 + static_cast<std::int64_t>(random() % 300);
    kill(pid, SIGKILL);
    return now_;
  };
  const auto requests = Good(kIsSlow ? 2000 : 20000);
  const TortureClock clock(1);
  for (int run = 0; clock.GoesOn(run) && !HasFailure(); ++run) {
    const auto engine = MakeHostedEngine(options).MoveValueUnsafe();
    ExpectAnswers(Finish(*engine, requests), requests);
    EXPECT_EQ(engine->stats().requests_crashed, 0);
    kills += engine->stats().restarts;
  }
  ReportTorture("engine, kills", seed, "kills", kills, HasFailure() ? 1 : 0);
}

}  // namespace
}  // namespace millstream
