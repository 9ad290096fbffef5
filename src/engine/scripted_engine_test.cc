// SPDX-License-Identifier: Apache-2.0
#include "engine/scripted_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace millstream {
namespace {

Request MakeRequest(RequestId id) {
  Request request;
  request.id = id;
  request.prompt_tokens = {1, 2, 3};
  return request;
}

ScriptedEngineOptions EchoId() {
  ScriptedEngineOptions options;
  options.answer = [](const Request& request) {
    Completion completion;
    completion.text = std::to_string(request.id);
    completion.tokens = {7, 8};
    return completion;
  };
  return options;
}

std::vector<RequestId> PollIds(Engine& engine) {
  std::vector<RequestId> ids;
  for (const Completion& completion : engine.Poll(Deadline::min(), {}).ValueOrDie()) {
    ids.push_back(completion.id);
  }
  return ids;
}

TEST(ScriptedEngineTest, AnswersByItsScriptAndCounts) {
  auto engine = MakeScriptedEngine(EchoId());
  EXPECT_EQ(engine->room().requests, 64);
  engine->Submit(MakeRequest(5));
  EXPECT_EQ(engine->room().requests, 63);
  const auto completions = engine->Poll(Deadline::min(), {}).ValueOrDie();
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].id, 5);
  EXPECT_EQ(completions[0].text, "5");
  EXPECT_EQ(completions[0].prompt_tokens, 3);
  EXPECT_EQ(completions[0].completion_tokens, 2);
  EXPECT_EQ(engine->stats().requests_finished, 1);
  EXPECT_EQ(engine->stats().completion_tokens, 2);
}

TEST(ScriptedEngineTest, FinishesInReverseAndInPartsWhenTold) {
  ScriptedEngineOptions options = EchoId();
  options.order = FinishOrder::kReversed;
  options.per_poll = 2;
  auto engine = MakeScriptedEngine(options);
  for (RequestId id = 1; id <= 3; ++id) engine->Submit(MakeRequest(id));
  EXPECT_EQ(PollIds(*engine), (std::vector<RequestId>{3, 2}));
  EXPECT_EQ(PollIds(*engine), (std::vector<RequestId>{1}));
  EXPECT_EQ(PollIds(*engine), (std::vector<RequestId>{}));
}

TEST(ScriptedEngineTest, FinishesEachOnceInAnOrderThatItsSeedNames) {
  const auto order = [](std::uint64_t seed) {
    ScriptedEngineOptions options = EchoId();
    options.order = FinishOrder::kShuffled;
    options.seed = seed;
    auto engine = MakeScriptedEngine(options);
    for (RequestId id = 1; id <= 8; ++id) engine->Submit(MakeRequest(id));
    return PollIds(*engine);
  };
  std::vector<RequestId> ids = order(1);
  EXPECT_EQ(ids, order(1));
  EXPECT_NE(ids, order(2));
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(ids, (std::vector<RequestId>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(ScriptedEngineTest, HangsUntilCancelled) {
  ScriptedEngineOptions options = EchoId();
  options.is_due = [](const Request& request) { return request.id != 1; };
  auto engine = MakeScriptedEngine(options);
  engine->Submit(MakeRequest(1));
  EXPECT_TRUE(PollIds(*engine).empty());
  engine->Cancel(1);
  const auto completions = engine->Poll(Deadline::max(), {}).ValueOrDie();
  ASSERT_EQ(completions.size(), 1U);
  EXPECT_EQ(completions[0].reason, FinishReason::kCancelled);
}

TEST(ScriptedEngineTest, DiesForGoodAfterSoManyCompletions) {
  ScriptedEngineOptions options = EchoId();
  options.die_after = 2;
  auto engine = MakeScriptedEngine(options);
  for (RequestId id = 1; id <= 3; ++id) engine->Submit(MakeRequest(id));
  EXPECT_EQ(PollIds(*engine), (std::vector<RequestId>{1, 2}));
  EXPECT_FALSE(engine->Poll(Deadline::max(), {}).ok());
  EXPECT_FALSE(engine->Poll(Deadline::max(), {}).ok());
}

TEST(ScriptedEngineTest, AnExceptionKillsIt) {
  ScriptedEngineOptions options;
  options.answer = [](const Request&) -> Completion { throw std::runtime_error("boom"); };
  auto engine = MakeScriptedEngine(options);
  engine->Submit(MakeRequest(1));
  EXPECT_EQ(engine->Poll(Deadline::max(), {}).status().message(), "engine died: boom");
}

TEST(ScriptedEngineTest, PollWaitsForASubmitFromAnotherThreadAndEndsOnStop) {
  auto engine = MakeScriptedEngine(EchoId());
  std::thread submitter([&] { engine->Submit(MakeRequest(9)); });
  const auto completions = engine->Poll(Deadline::max(), {}).ValueOrDie();
  submitter.join();
  ASSERT_EQ(completions.size(), 1U);
  std::stop_source stop;
  std::thread stopper([&] { stop.request_stop(); });
  EXPECT_TRUE(engine->Poll(Deadline::max(), stop.get_token()).ValueOrDie().empty());
  stopper.join();
}

}  // namespace
}  // namespace millstream
