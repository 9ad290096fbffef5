// SPDX-License-Identifier: Apache-2.0
#include "engine/flight_recorder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "engine/child_process.h"
#include "engine/frames.h"
#include "engine/guarded_engine.h"
#include "engine/recorded_engine.h"
#include "engine/scripted_engine.h"
#include "engine/test_child/script.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

std::string BytesOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FlightRecorderTest : public testing::Test {
 protected:
  FlightRecorderTest() { fs::create_directories(folder_); }
  ~FlightRecorderTest() override { fs::remove_all(folder_); }

  std::unique_ptr<FlightRecorder> Open(const std::vector<Flight>& suspects = {}) {
    return FlightRecorder::Open(path_, suspects).MoveValueUnsafe();
  }
  FlightRecord Read() { return FlightRecorder::Read(path_).ValueOrDie(); }
  std::vector<std::string> Suspects() {
    std::vector<std::string> names;
    for (const Flight& flight : Read().suspects) names.push_back(flight.name);
    return names;
  }
  /// Runs the test's child to its end.
  static ChildProcess::Exit RunChild(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), MS_TEST_CHILD);
    const auto child = ChildProcess::Spawn(arguments).MoveValueUnsafe();
    FrameReader socket(child->socket());
    while (socket.Receive(/*wait=*/true) != FrameReader::Arrival::kEnd) {
    }
    return child->Reap();
  }

  const std::string folder_ = testing::TempDir() + "/flight_" + std::to_string(getpid()) + "_" +
                              testing::UnitTest::GetInstance()->current_test_info()->name();
  const std::string path_ = folder_ + "/flight";
  const std::string script_path_ = folder_ + "/script";
};

TEST_F(FlightRecorderTest, WithoutACauseNobodyIsSuspect) {
  EXPECT_TRUE(Read().suspects.empty());  // no file
  const auto recorder = Open();
  recorder->Enter({{1, 2}, "a"});
  EXPECT_EQ(Read().cause, FlightCause::kNone);
  EXPECT_TRUE(Read().suspects.empty());
  EXPECT_EQ(Read().Describe(), "");
}

TEST_F(FlightRecorderTest, WithACauseThoseInFlightAre) {
  const auto recorder = Open();
  recorder->Enter({{1, 2}, "a"});
  recorder->Enter({{3, 4}, std::string(150, 'b')});
  recorder->Enter({{5, 6}, "c"});
  recorder->Leave({1, 2});
  recorder->Leave({9, 9});  // unknown
  recorder->SetCause(FlightCause::kHang);
  recorder->SetCause(FlightCause::kOutOfMemory);  // too late
  const FlightRecord record = Read();
  EXPECT_EQ(record.Describe(), "hang");
  ASSERT_EQ(record.suspects.size(), 2U);
  EXPECT_EQ(record.suspects[0].key.high, 3U);
  EXPECT_EQ(record.suspects[0].key.low, 4U);
  EXPECT_EQ(record.suspects[0].name, std::string(100, 'b'));
  EXPECT_EQ(record.suspects[1].name, "c");
}

TEST_F(FlightRecorderTest, ASuspectStaysOneUntilItHasLeft) {
  for (int life = 0; life < 3; ++life) {
    const auto recorder =
        Open(life == 0 ? std::vector<Flight>{{{1, 1}, "s"}, {{2, 2}, "t"}} : Read().suspects);
    recorder->Enter({{1, 1}, "s"});
    recorder->Enter({{3, 3}, "u"});
    EXPECT_EQ(Suspects(), (std::vector<std::string>{"s", "t"}));
  }
  const auto recorder = Open(Read().suspects);
  recorder->Leave({1, 1});
  EXPECT_EQ(Suspects(), (std::vector<std::string>{"t"}));
}

TEST_F(FlightRecorderTest, WhatIsBeyondItsCapacityIsNotRecorded) {
  const auto recorder = Open();
  for (std::uint64_t i = 0; i < 2 * FlightRecorder::kCapacity; ++i) recorder->Enter({{0, i}, "x"});
  for (std::uint64_t i = 0; i < 5; ++i) recorder->Leave({0, i});
  recorder->Enter({{7, 7}, "y"});
  recorder->SetCause(FlightCause::kHang);
  EXPECT_EQ(Read().suspects.size(), FlightRecorder::kCapacity - 4);
}

TEST_F(FlightRecorderTest, OtherFilesAreRefusedAndNoneIsTooHostile) {
  const auto recorder = Open({{{{1, 1}, "s"}}});
  const std::string good = BytesOf(path_);
  const auto read = [&](const std::string& bytes) {
    std::ofstream(path_ + ".bad", std::ios::binary) << bytes;
    return FlightRecorder::Read(path_ + ".bad").ok();
  };
  EXPECT_TRUE(read(good));
  EXPECT_FALSE(read(""));
  EXPECT_FALSE(read(good + "x"));
  EXPECT_FALSE(read(good.substr(1)));
  EXPECT_FALSE(read(std::string(good.size(), '\0')));
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = good;
    for (std::size_t i = 8; i < bytes.size(); ++i) {
      if (random() % 20 == 0) bytes[i] = static_cast<char>(random());
    }
    read(bytes);
  }
  EXPECT_FALSE(FlightRecorder::Open(folder_ + "/no/such/folder", {}).ok());
}

TEST_F(FlightRecorderTest, AFatalSignalIsRecordedAndKillsAsBefore) {
  ASSERT_NE(ChildScript::Map(script_path_, true), nullptr);
  std::uint64_t segv_hash = 0;
  for (const auto& [how, signal] :
       {std::pair(kSegv, SIGSEGV),
        std::pair(kStackOverflow, SIGSEGV),
        std::pair(kAbort, SIGABRT),
        std::pair(kSegv, SIGSEGV)}) {
    SCOPED_TRACE(how);
    EXPECT_EQ(RunChild({"die", script_path_, path_, std::to_string(how)}).signal, signal);
    const FlightRecord record = Read();
    EXPECT_EQ(record.cause, FlightCause::kSignal);
    EXPECT_EQ(record.signal, signal);
    EXPECT_NE(record.stack_hash, 0U);
    EXPECT_EQ(Suspects(), (std::vector<std::string>{"0:3 answer 0"}));
    EXPECT_EQ(record.Describe().find(SignalName(signal) + " (stack "), 0U) << record.Describe();
    if (how == kSegv && segv_hash != 0) {
      EXPECT_EQ(record.stack_hash, segv_hash);
    }
    if (how == kSegv) segv_hash = record.stack_hash;
  }
}

TEST_F(FlightRecorderTest, AKillIsNobodysFault) {
  ASSERT_NE(ChildScript::Map(script_path_, true), nullptr);
  EXPECT_EQ(RunChild({"die", script_path_, path_, std::to_string(kKillItself)}).signal, SIGKILL);
  EXPECT_EQ(Read().cause, FlightCause::kNone);
  EXPECT_TRUE(Suspects().empty());
}

TEST_F(FlightRecorderTest, AnEarlierHandlerStillRuns) {
  EXPECT_EQ(RunChild({"chain", path_}).code, 42);
  EXPECT_EQ(Read().signal, SIGSEGV);
}

// A job whose row 17 kills its process: the next run finds it, and it alone.
TEST_F(FlightRecorderTest, TheNextRunQuarantinesWhatKilledThisOne) {
  for (const auto& [how, code] :
       {std::pair(kSegv, "crash"), std::pair(kHang, "hang"), std::pair(kBadAlloc, "oom")}) {
    SCOPED_TRACE(code);
    ASSERT_NE(ChildScript::Map(script_path_, true), nullptr);
    fs::remove(path_);
    const std::string done = folder_ + "/done-" + code;
    const std::vector<std::string> drive = {
        "drive", script_path_, path_, done, std::to_string(how)
    };
    const ChildProcess::Exit first = RunChild(drive);
    if (how == kBadAlloc) {
      EXPECT_EQ(first.code, 7);
    } else {
      EXPECT_EQ(first.signal, how == kSegv ? SIGSEGV : SIGABRT);
    }
    const auto suspects = Suspects();
    EXPECT_EQ(std::count(suspects.begin(), suspects.end(), "0:17"), 1);
    EXPECT_LE(suspects.size(), 100U - 15);  // what had finished is none

    const ChildProcess::Exit second = RunChild(drive);
    EXPECT_EQ(second.signal, 0);
    EXPECT_EQ(second.code, 0);
    EXPECT_TRUE(Suspects().empty());
    std::map<std::int64_t, std::string> answers;
    std::ifstream file(done);
    std::int64_t id = 0;
    for (std::string text; file >> id >> text;) {
      EXPECT_TRUE(answers.emplace(id, text).second) << "twice: " << id;
    }
    ASSERT_EQ(answers.size(), 100U);
    for (const auto& [number, text] : answers) {
      const std::string name = std::to_string(number);
      EXPECT_EQ(
          text, number == 17 ? code : std::string("0:").append(name).append("/").append(name)
      );
    }
  }
}

TEST_F(FlightRecorderTest, ARecordedEngineEntersAndLeaves) {
  const auto recorder = Open();
  ScriptedEngineOptions options;
  options.per_poll = 1;
  options.answer = ScriptedAnswer;
  const auto engine = MakeRecordedEngine(MakeScriptedEngine(options), *recorder, {});
  for (RequestId id = 1; id <= 3; ++id) {
    Request request;
    request.id = id;
    request.random = {0, static_cast<std::uint64_t>(id)};
    request.name = std::to_string(id);
    engine->Submit(std::move(request));
  }
  EXPECT_EQ(engine->Poll(Deadline::max(), {}).ValueOrDie().size(), 1U);
  recorder->SetCause(FlightCause::kHang);
  EXPECT_EQ(Suspects(), (std::vector<std::string>{"2", "3"}));
}

TEST_F(FlightRecorderTest, SuspectsWaitUntilNothingElseIsInTheEngine) {
  const std::vector<Flight> suspects = {{{0, 1}, "1"}, {{0, 2}, "2"}};
  const auto recorder = Open(suspects);
  ScriptedEngineOptions options;
  options.answer = ScriptedAnswer;
  options.per_poll = 1;
  int children = 0;
  const auto engine = MakeGuardedEngine(
      MakeScriptedEngine(options),
      *recorder,
      suspects,
      [&]() -> Result<std::unique_ptr<Engine>> {
        ++children;
        return MakeScriptedEngine(options);
      }
  );
  for (RequestId id = 1; id <= 4; ++id) {
    Request request;
    request.id = id;
    request.random = {0, static_cast<std::uint64_t>(id)};
    engine->Submit(std::move(request));
  }
  engine->Cancel(2);
  std::vector<RequestId> order;
  std::map<RequestId, FinishReason> reasons;
  while (order.size() < 4) {
    for (const Completion& one : engine->Poll(Deadline::max(), {}).ValueOrDie()) {
      EXPECT_EQ(children, one.id <= 2 ? 1 : 0);
      order.push_back(one.id);
      reasons[one.id] = one.reason;
    }
  }
  EXPECT_EQ(order, (std::vector<RequestId>{3, 4, 1, 2}));
  EXPECT_EQ(reasons[2], FinishReason::kCancelled);
  EXPECT_EQ(engine->stats().requests_finished, 4);
  EXPECT_TRUE(Suspects().empty());
}

}  // namespace
}  // namespace millstream
