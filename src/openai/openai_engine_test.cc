// SPDX-License-Identifier: Apache-2.0
#include "openai/openai_engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <map>

#include "base/mutex.h"
#include "openai/engine_testing.h"
#include "openai/testing.h"

namespace millstream {
namespace {

using std::chrono::hours;

std::unique_ptr<Engine> EngineFor(
    const StubServer& server, std::chrono::milliseconds backoff = std::chrono::milliseconds(1)
) {
  OpenAiEngineOptions options;
  options.access.base_urls = {server.url()};
  options.backoff_first = backoff;
  options.probes = {{"/chat/completions", "probe"}};
  return MakeOpenAiEngine(std::move(options)).ValueOrDie();
}

TEST(OpenAiEngineTest, EachRequestIsAnsweredOnceWhateverTheServerDoesFirst) {
  std::atomic<int> count = 0;
  const StubServer server([&](const std::string& body) -> std::string {
    switch (count++ % 9) {
      case 2:
        return "";  // closes the connection
      case 4:
        return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{\"ch";
      case 6:
        return StubServer::Reply(500, "");
      default:
        return StubServer::Completion("re: " + body);
    }
  });
  const auto engine = EngineFor(server);
  constexpr RequestId kCount = 60;
  RequestId next = 1;
  for (; next <= kCount; ++next) engine->Submit(Asking(next, std::to_string(next)));
  const auto all = Await(*engine, kCount);
  for (const auto& [id, completion] : all) {
    EXPECT_EQ(completion.text, "re: " + std::to_string(id));
    EXPECT_EQ(completion.reason, FinishReason::kStop);
  }
  EXPECT_EQ(engine->stats().requests_finished, kCount);
}

TEST(OpenAiEngineTest, HundredsAreUnderWayAtOnceAndLargeAnswersComeWhole) {
  constexpr RequestId kCount = 300;
  std::latch reached(kCount);
  const std::string large(100'000, 'x');
  const StubServer server([&](const std::string& body) {
    if (body.size() < 4) reached.arrive_and_wait();  // of the first round
    return StubServer::Completion(large + body);
  });
  OpenAiEngineOptions options;
  options.access.base_urls = {server.url()};
  options.max_in_flight = kCount;
  const auto engine = MakeOpenAiEngine(std::move(options)).ValueOrDie();
  for (const std::string prefix : {"", "again "}) {
    for (RequestId id = 1; id <= kCount; ++id) {
      engine->Submit(Asking(id, prefix + std::to_string(id)));
    }
    for (const auto& [id, completion] : Await(*engine, kCount)) {
      EXPECT_EQ(completion.text, large + prefix + std::to_string(id));
    }
  }
}

TEST(OpenAiEngineTest, WhatIsCancelledEndsThoughTheServerHangsAndSoDoesTheEngine) {
  std::latch reached(2), goes_on(1);
  const StubServer server([&](const std::string&) {
    reached.count_down();
    goes_on.wait();
    return std::string();
  });
  auto engine = EngineFor(server);
  engine->Submit(Asking(1, "x"));
  engine->Submit(Asking(2, "x"));
  reached.wait();
  engine->Cancel(1);
  engine->Cancel(7);  // there is none
  const auto all = Await(*engine, 1);
  EXPECT_EQ(all.at(1).reason, FinishReason::kCancelled);
  engine.reset();  // with one under way
  goes_on.count_down();
}

TEST(OpenAiEngineTest, AServerThatRefusesTheKeyBreaksTheEngineAfterTheAnswersThatCame) {
  const StubServer server([&](const std::string& body) {
    return body == "good" ? StubServer::Completion("yes")
                          : StubServer::Reply(401, R"({"error":{"message":"no such key"}})");
  });
  const auto engine = EngineFor(server);
  engine->Submit(Asking(1, "good"));
  EXPECT_EQ(Await(*engine, 1).at(1).text, "yes");
  engine->Submit(Asking(2, "bad"));
  const Status broken = engine->Poll(Never(), {}).status();
  EXPECT_TRUE(IsEngineBroken(broken)) << broken;
  EXPECT_NE(broken.message().find("no such key"), std::string::npos) << broken;
}

// libcurl would send a request again by itself if a kept connection breaks under it, and a row that
// kills its server would do so twice, unnoticed.
TEST(OpenAiEngineTest, ARequestThatAKeptConnectionBreaksUnderIsSentAgainOnlyAfterALookAtTheServer) {
  Mutex mutex;
  std::vector<std::string> came;
  const StubServer server([&](const std::string& body) {
    MutexLock lock(mutex);
    came.push_back(body);
    return came.size() == 2 ? std::string() : StubServer::Completion("yes");
  });
  const auto engine = EngineFor(server, std::chrono::milliseconds(300));
  for (const RequestId id : {1, 2}) {
    engine->Submit(Asking(id, std::to_string(id)));
    EXPECT_EQ(Await(*engine, 1).at(id).text, "yes");
  }
  EXPECT_EQ(came, (std::vector<std::string>{"1", "2", "/v1/models", "2"}));
}

TEST(OpenAiEngineTest, AServersHeadersSayHowManyMoreItGetsAndWhen) {
  const StubServer server([](const std::string&) {
    std::string answer = StubServer::Completion("yes");
    answer.insert(
        answer.find("\r\n") + 2,
        "X-RateLimit-Limit-Requests: 2\r\nX-RateLimit-Remaining-Requests: 0\r\n"
        "X-RateLimit-Reset-Requests: 150ms\r\n"
    );
    return answer;
  });
  const auto engine = EngineFor(server);
  engine->Submit(Asking(1, "x"));
  Await(*engine, 1);
  const auto begun = std::chrono::steady_clock::now();
  for (RequestId id = 2; id <= 7; ++id) engine->Submit(Asking(id, "x"));
  Await(*engine, 6);  // two after each of three resets
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(400));
}

TEST(OpenAiEngineTest, PollReturnsAtItsDeadlineAndWhenItIsStopped) {
  const StubServer server([](const std::string&) { return std::string(); });
  const auto engine = EngineFor(server);
  EXPECT_TRUE(engine->Poll(std::chrono::steady_clock::now(), {})->empty());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(engine->Poll(Never(), stop.get_token())->empty());
  EXPECT_GT(engine->room().requests, 0);
}

}  // namespace
}  // namespace millstream
