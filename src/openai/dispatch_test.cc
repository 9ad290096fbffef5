// SPDX-License-Identifier: Apache-2.0
#include "openai/dispatch.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <set>

#include "fmt/format.h"
#include "openai/engine_testing.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Kind = Verdict::Kind;

class DispatchTest : public testing::Test {
 protected:
  DispatchOptions Options() const {
    DispatchOptions options;
    options.max_in_flight = 4;
    return options;
  }
  // Lets time pass until a request is to be sent.
  Dispatch::Sending Await(Dispatch& dispatch) {
    for (int i = 0; i < 1000; ++i) {
      if (const auto server = dispatch.NextProbe(now_)) {
        dispatch.Probed(*server, Of(Kind::kAgain), now_);
      }
      if (const auto server = dispatch.NextLook(now_)) {
        dispatch.Looked(*server, Of(Kind::kAnswer), now_);
      }
      if (const auto sending = dispatch.Next(now_)) return *sending;
      now_ = std::max(now_ + milliseconds(1), dispatch.NextTime().value_or(now_));
    }
    ADD_FAILURE() << "nothing is to be sent";
    return {};
  }

  Dispatch::Time now_{};
};

TEST_F(DispatchTest, SendsNoMoreThanFitAndOneMoreForEachThatEnds) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 6; ++id) dispatch.Add(id, 10);
  for (int id = 1; id <= 4; ++id) EXPECT_EQ(dispatch.Next(now_)->id, id);
  EXPECT_FALSE(dispatch.Next(now_));
  EXPECT_FALSE(dispatch.NextTime());  // nothing but an end gives another
  EXPECT_EQ(dispatch.room(), 0);
  EXPECT_TRUE(dispatch.Ended(2, Of(Kind::kAnswer), now_));
  EXPECT_EQ(dispatch.Next(now_)->id, 5);
  EXPECT_FALSE(dispatch.Next(now_));
  dispatch.Cancel(1);
  EXPECT_FALSE(dispatch.Ended(1, Of(Kind::kAnswer), now_));  // nobody waits for it
  EXPECT_EQ(dispatch.Next(now_)->id, 6);
}

TEST_F(DispatchTest, TheServerWithTheLeastWorkUnderWayIsAsked) {
  DispatchOptions options = Options();
  options.num_servers = 2;
  Dispatch dispatch(options, 1);
  dispatch.Add(1, 100);
  for (int id = 2; id <= 4; ++id) dispatch.Add(id, 10);
  const std::size_t busy = dispatch.Next(now_)->server;
  for (int id = 2; id <= 4; ++id) EXPECT_NE(dispatch.Next(now_)->server, busy);
}

Verdict Refused() {
  Verdict refused = Of(Kind::kRefused);
  refused.completion.reason = FinishReason::kError;
  refused.completion.error_code = "bad_request";
  return refused;
}

// What a server refuses is the request's own fault if it answers anything at all.
TEST_F(DispatchTest, AProbeTellsWhetherAServerRefusesOneRequestOrAll) {
  for (const Kind told : {Kind::kAnswer, Kind::kRefused, Kind::kStop}) {
    DispatchOptions options = Options();
    options.num_probes = 2;
    Dispatch dispatch(options, 1);
    for (int id = 1; id <= 3; ++id) dispatch.Add(id, 1);
    ASSERT_TRUE(dispatch.Next(now_));
    EXPECT_FALSE(dispatch.Ended(1, Refused(), now_));
    EXPECT_FALSE(dispatch.Next(now_));  // until it is known
    EXPECT_EQ(dispatch.NextTime(), now_);
    ASSERT_TRUE(dispatch.NextProbe(now_));
    EXPECT_FALSE(dispatch.NextProbe(now_));
    dispatch.Probed(0, Of(Kind::kRefused), now_);  // it has one endpoint alone, perhaps
    EXPECT_EQ(dispatch.WhyStopped(now_), "");
    EXPECT_EQ(dispatch.refused_probes(0), 1);
    ASSERT_TRUE(dispatch.NextProbe(now_));
    dispatch.Probed(0, Of(told), now_);
    if (told != Kind::kAnswer) {
      EXPECT_EQ(dispatch.WhyStopped(now_), "as scripted");
      continue;
    }
    EXPECT_EQ(dispatch.WhyStopped(now_), "");
    const std::vector<Completion> blamed = dispatch.TakeFailed();
    ASSERT_EQ(blamed.size(), 1);
    EXPECT_EQ(blamed[0].id, 1);
    EXPECT_EQ(blamed[0].error_code, "bad_request");
    EXPECT_EQ(Await(dispatch).id, 2);
    EXPECT_EQ(dispatch.Ended(2, Refused(), now_)->error_code, "bad_request");
    EXPECT_EQ(Await(dispatch).id, 3);
  }
}

TEST_F(DispatchTest, AnAnswerTellsAsAProbeDoes) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 4; ++id) dispatch.Add(id, 1);
  for (int id = 1; id <= 4; ++id) ASSERT_TRUE(dispatch.Next(now_));
  EXPECT_FALSE(dispatch.Ended(1, Refused(), now_));
  EXPECT_FALSE(dispatch.Ended(2, Refused(), now_));
  dispatch.Cancel(2);
  EXPECT_TRUE(dispatch.Ended(3, Of(Kind::kAnswer), now_));
  const std::vector<Completion> blamed = dispatch.TakeFailed();
  ASSERT_EQ(blamed.size(), 1);
  EXPECT_EQ(blamed[0].id, 1);
  EXPECT_TRUE(dispatch.Ended(4, Refused(), now_));
}

TEST_F(DispatchTest, AServerThatComesToRefuseAllIsProbedAnew) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 200; ++id) dispatch.Add(id, 1);
  EXPECT_TRUE(dispatch.Ended(Await(dispatch).id, Of(Kind::kAnswer), now_));
  int failed = 0;
  while (dispatch.Ended(Await(dispatch).id, Refused(), now_)) ASSERT_LT(++failed, 200);
  EXPECT_EQ(failed, 32);
  ASSERT_TRUE(dispatch.NextProbe(now_));
  dispatch.Probed(0, Of(Kind::kRefused), now_);
  EXPECT_EQ(dispatch.WhyStopped(now_), "as scripted");
}

TEST_F(DispatchTest, WhereAProbeTellsNothingWhatWasRefusedIsSentAgain) {
  for (const Kind told : {Kind::kAgain, Kind::kBusy, Kind::kGone, Kind::kLost, Kind::kTimeout}) {
    Dispatch dispatch(Options(), 1);
    dispatch.Add(1, 1);
    ASSERT_TRUE(dispatch.Next(now_));
    EXPECT_FALSE(dispatch.Ended(1, Refused(), now_));
    ASSERT_TRUE(dispatch.NextProbe(now_));
    dispatch.Probed(0, Of(told), now_);
    EXPECT_TRUE(dispatch.TakeFailed().empty());
    EXPECT_EQ(Await(dispatch).id, 1);
    EXPECT_TRUE(dispatch.Ended(1, Of(Kind::kAnswer), now_));
  }
}

// One wrong address among several is to be told, not to fail the rows that are sent there.
TEST_F(DispatchTest, WhatOneServerAnswersSaysNothingOfAnother) {
  DispatchOptions options = Options();
  options.num_servers = 2;
  Dispatch dispatch(options, 1);
  for (int id = 1; id <= 4; ++id) dispatch.Add(id, 1);
  const auto first = *dispatch.Next(now_), second = *dispatch.Next(now_);
  ASSERT_NE(first.server, second.server);
  EXPECT_TRUE(dispatch.Ended(first.id, Of(Kind::kAnswer), now_));
  EXPECT_FALSE(dispatch.Ended(second.id, Refused(), now_));
  EXPECT_EQ(dispatch.Next(now_)->server, first.server);
  EXPECT_EQ(dispatch.NextProbe(now_), second.server);
  dispatch.Probed(second.server, Of(Kind::kRefused), now_);
  EXPECT_EQ(dispatch.WhyStopped(now_), "as scripted");
}

TEST_F(DispatchTest, AServerIsLeftAsLongAsItAsks) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  dispatch.Add(2, 1);
  ASSERT_TRUE(dispatch.Next(now_));
  Verdict busy = Of(Kind::kBusy);
  busy.retry_after = seconds(90);
  EXPECT_FALSE(dispatch.Ended(1, busy, now_));
  EXPECT_FALSE(dispatch.Next(now_ + seconds(89)));
  EXPECT_TRUE(dispatch.Next(now_ + seconds(90)));
}

TEST_F(DispatchTest, OneRequestLooksWhetherAServerThatIsGoneIsBack) {
  DispatchOptions options = Options();
  options.num_servers = 2;
  Dispatch dispatch(options, 1);
  for (int id = 1; id <= 8; ++id) dispatch.Add(id, 1);
  const auto first = Await(dispatch);
  dispatch.Ended(first.id, Of(Kind::kGone), now_);
  std::map<std::size_t, int> sent;
  for (int i = 0; i < 3; ++i) ++sent[Await(dispatch).server];
  EXPECT_EQ(sent[first.server], 0);
  now_ += minutes(1);
  EXPECT_EQ(dispatch.Next(now_)->server, first.server);  // it has the least under way
  EXPECT_FALSE(dispatch.Next(now_));                     // four are under way
}

TEST_F(DispatchTest, ARowFailsOnlyAfterItsDeadlineOfFailingWhileOthersAreAnswered) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  int next = 2;
  int tries = 0;
  std::optional<Completion> end;
  const Dispatch::Time start = now_;
  while (!end && ++tries < 10'000) {
    const auto sending = Await(dispatch);
    if (sending.id != 1) {
      EXPECT_TRUE(dispatch.Ended(sending.id, Of(Kind::kAnswer), now_));
      continue;
    }
    dispatch.Add(next++, 1);
    end = dispatch.Ended(1, Of(Kind::kAgain), now_);
    now_ += seconds(1);
  }
  ASSERT_TRUE(end);
  EXPECT_EQ(end->error_code, "fetch");
  EXPECT_GE(now_ - start, minutes(30));
  EXPECT_LE(now_ - start, minutes(40));
}

TEST_F(DispatchTest, AnOutageFailsNoRowAndEndsTheJobAfterALongTime) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 4; ++id) dispatch.Add(id, 1);
  dispatch.Ended(Await(dispatch).id, Of(Kind::kAnswer), now_);
  const Dispatch::Time start = now_;
  for (int i = 0; dispatch.WhyStopped(now_).empty(); ++i) {
    ASSERT_LT(i, 10'000);
    EXPECT_FALSE(
        dispatch.Ended(Await(dispatch).id, Of(i % 3 == 0 ? Kind::kAgain : Kind::kGone), now_)
    );
  }
  EXPECT_GE(now_ - start, minutes(15));
  EXPECT_LE(now_ - start, minutes(17));
  EXPECT_NE(dispatch.WhyStopped(now_).find("900 s"), std::string::npos);
}

// A server that says that it has too much to do is there: nobody gives up on it.
TEST_F(DispatchTest, ABusyServerIsWaitedForHoweverLong) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  const Dispatch::Time start = now_;
  while (now_ - start < minutes(120)) {
    Verdict busy = Of(Kind::kBusy);
    busy.retry_after = seconds(20);
    ASSERT_FALSE(dispatch.Ended(Await(dispatch).id, busy, now_));
    ASSERT_EQ(dispatch.WhyStopped(now_), "");
  }
  EXPECT_TRUE(dispatch.Ended(Await(dispatch).id, Of(Kind::kAnswer), now_));
}

TEST_F(DispatchTest, ARowThatTimesOutThriceWhileOthersAreAnsweredFails) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  int timeouts = 0;
  std::optional<Completion> end;
  for (int next = 2; !end; ++next) {
    dispatch.Add(next, 1);
    std::set<std::int64_t> sent{Await(dispatch).id, Await(dispatch).id};
    ASSERT_TRUE(sent.contains(1));
    ASSERT_TRUE(dispatch.Ended(next, Of(Kind::kAnswer), now_));
    now_ += minutes(1);
    end = dispatch.Ended(1, Of(Kind::kTimeout), now_);
    ASSERT_LE(++timeouts, 3);
  }
  EXPECT_EQ(timeouts, 3);
  EXPECT_EQ(end->error_code, "timeout");
}

// A server that fails at once always has the least under way.
TEST_F(DispatchTest, AServerThatFailsEachTimeGetsOneRequestAtATime) {
  DispatchOptions options = Options();
  options.num_servers = 2;
  Dispatch dispatch(options, 1);
  std::map<std::size_t, int> sent;
  for (int id = 1; id <= 2000; ++id) {
    dispatch.Add(id, 1);
    const auto sending = Await(dispatch);
    ++sent[sending.server];
    now_ += milliseconds(10);
    dispatch.Ended(sending.id, Of(sending.server == 0 ? Kind::kAgain : Kind::kAnswer), now_);
  }
  EXPECT_LE(sent[0], 60);
  EXPECT_EQ(dispatch.WhyStopped(now_), "");
}

// A probe tells whether the rows that are left fail or the server.
TEST_F(DispatchTest, ARowThatFailsAloneFailsIfTheServerAnswersProbesAndElseTheJobStops) {
  for (const bool answers : {true, false}) {
    Dispatch dispatch(Options(), 1);
    dispatch.Add(1, 1);
    const Dispatch::Time start = now_;
    std::optional<Completion> end;
    int probes = 0;
    while (!end && dispatch.WhyStopped(now_).empty() && now_ - start < minutes(100)) {
      if (const auto server = dispatch.NextProbe(now_)) {
        dispatch.Probed(*server, Of(answers ? Kind::kAnswer : Kind::kAgain), now_);
        ++probes;
      }
      if (const auto sending = dispatch.Next(now_)) {
        end = dispatch.Ended(1, Of(Kind::kAgain), now_ + milliseconds(5));
      }
      now_ = std::max(now_ + milliseconds(5), dispatch.NextTime().value_or(now_));
    }
    EXPECT_GT(probes, 5);
    EXPECT_EQ(
        end ? end->error_code : dispatch.WhyStopped(now_).substr(0, 9),
        answers ? "fetch" : "no server"
    );
    EXPECT_GE(now_ - start, answers ? minutes(30) : minutes(15));
    EXPECT_LE(now_ - start, answers ? minutes(40) : minutes(18));
  }
}

TEST_F(DispatchTest, RowsThatWaitToBeAskedAgainHoldNoOtherUp) {
  Dispatch dispatch(Options(), 1);
  int next = 0;
  for (int i = 0; i < 10; ++i) {
    ASSERT_GT(dispatch.room(), 0) << i;
    dispatch.Add(++next, 1);
    const auto sending = dispatch.Next(now_);
    ASSERT_TRUE(sending);
    dispatch.Ended(sending->id, Of(i % 2 == 0 ? Kind::kAgain : Kind::kAnswer), now_);
  }
}

TEST_F(DispatchTest, TimeoutsOfManyAreTheServersAndNotTheirs) {
  DispatchOptions options = Options();
  options.row_deadline = minutes(1000);
  Dispatch dispatch(options, 1);
  for (int round = 0; round < 10; ++round) {
    while (dispatch.room() > 0) dispatch.Add(1000 * round + dispatch.room(), 1);
    const auto answered = Await(dispatch), first = Await(dispatch), second = Await(dispatch);
    dispatch.Ended(answered.id, Of(Kind::kAnswer), now_);
    now_ += minutes(10);
    EXPECT_FALSE(dispatch.Ended(first.id, Of(Kind::kTimeout), now_));
    dispatch.Ended(second.id, Of(Kind::kTimeout), now_);
    dispatch.Cancel(second.id);
  }
}

TEST_F(DispatchTest, ATimeoutWhileNobodyIsAnsweredIsAnOutage) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(dispatch.Ended(Await(dispatch).id, Of(Kind::kTimeout), now_));
  }
}

TEST_F(DispatchTest, ARowThatAloneTimesOutThriceFailsThoughNoOtherIsLeft) {
  Dispatch dispatch(Options(), 1);
  dispatch.Add(1, 1);
  int sent = 0;
  std::vector<Completion> failed;
  for (int i = 0; i < 10'000 && failed.empty(); ++i) {
    if (dispatch.NextProbe(now_)) dispatch.Probed(0, Of(Kind::kAnswer), now_);
    if (dispatch.Next(now_)) {
      ++sent;
      now_ += minutes(10);
      EXPECT_FALSE(dispatch.Ended(1, Of(Kind::kTimeout), now_));
    }
    failed = dispatch.TakeFailed();
    now_ += milliseconds(100);
  }
  ASSERT_EQ(failed.size(), 1U);
  EXPECT_EQ(failed[0].error_code, "timeout");
  EXPECT_EQ(sent, 3);
  EXPECT_FALSE(dispatch.Next(now_ + minutes(60)));
}

// A request that is larger than a limit is refused as if the server were busy, each time.
TEST_F(DispatchTest, ARowThatIsRefusedWhileOthersAreAnsweredFailsAfterItsDeadline) {
  for (const Kind kind : {Kind::kBusy, Kind::kUnavailable}) {
    for (const bool has_others : {true, false}) {
      for (const bool says_when : {true, false}) {
        SCOPED_TRACE(fmt::format("{} {} {}", static_cast<int>(kind), has_others, says_when));
        Dispatch dispatch(Options(), 1);
        const Dispatch::Time begun = now_;
        dispatch.Add(1, 1);
        std::int64_t added = 1;
        std::optional<Completion> failed;
        while (!failed) {
          ASSERT_LT(now_, begun + minutes(300));
          if (has_others && dispatch.room() > 0) dispatch.Add(++added, 1);
          if (dispatch.NextProbe(now_)) dispatch.Probed(0, Of(Kind::kAnswer), now_);
          while (const auto sending = dispatch.Next(now_)) {
            Verdict verdict = Of(sending->id == 1 ? kind : Kind::kAnswer);
            if (says_when && sending->id == 1) verdict.retry_after = seconds(5);
            auto completion = dispatch.Ended(sending->id, verdict, now_);
            EXPECT_EQ(sending->id != 1, completion && completion->error_code.empty());
            if (sending->id == 1) failed = std::move(completion);
          }
          now_ += seconds(1);
        }
        EXPECT_EQ(failed->error_code, "fetch");
        EXPECT_GE(now_, begun + minutes(30));
      }
    }
  }
}

TEST_F(DispatchTest, ARetryAfterIsNoTimeOfFailing) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 3; ++id) dispatch.Add(id, 1);
  for (int id = 1; id <= 3; ++id) ASSERT_TRUE(dispatch.Next(now_));
  EXPECT_FALSE(dispatch.Ended(1, Of(Kind::kAgain), now_));
  EXPECT_TRUE(dispatch.Ended(2, Of(Kind::kAnswer), now_));
  Verdict verdict = Of(Kind::kUnavailable);
  verdict.retry_after = minutes(40);
  EXPECT_FALSE(dispatch.Ended(3, verdict, now_));
  now_ += minutes(41);
  ASSERT_TRUE(dispatch.Next(now_));
  ASSERT_TRUE(dispatch.Next(now_));
  EXPECT_TRUE(dispatch.Ended(3, Of(Kind::kAnswer), now_));
  EXPECT_FALSE(dispatch.Ended(1, Of(Kind::kAgain), now_));  // of 41 minutes, one has passed
}

TEST_F(DispatchTest, AProbeIsSentNoEarlierThanTheServerAsks) {
  Dispatch dispatch(Options(), 1);
  for (int id = 1; id <= 3; ++id) dispatch.Add(id, 1);
  for (int id = 1; id <= 3; ++id) ASSERT_TRUE(dispatch.Next(now_));
  Verdict verdict = Of(Kind::kUnavailable);
  verdict.retry_after = minutes(2);
  for (int id = 1; id <= 3; ++id) EXPECT_FALSE(dispatch.Ended(id, verdict, now_));
  EXPECT_FALSE(dispatch.NextProbe(now_ + seconds(119)));
  now_ += minutes(2);
  ASSERT_TRUE(dispatch.NextProbe(now_));
  dispatch.Probed(0, verdict, now_);
  EXPECT_FALSE(dispatch.NextProbe(now_ + seconds(119)));
  EXPECT_TRUE(dispatch.NextProbe(now_ + minutes(2)));
}

// Whatever happens to requests, each ends once, and with an answer: none of it is its own fault.
TEST_F(DispatchTest, EveryRequestEndsOnce) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    DispatchOptions options;
    options.num_servers = 1 + seed % 3;
    Dispatch dispatch(options, seed);
    constexpr int kCount = 500;
    int added = 0, ended = 0;
    std::vector<std::int64_t> under_way;
    while (ended < kCount) {
      while (added < kCount && dispatch.room() > 0) dispatch.Add(++added, 1 + random() % 100);
      while (const auto sending = dispatch.Next(now_)) under_way.push_back(sending->id);
      now_ += milliseconds(random() % 100);
      if (under_way.empty()) {
        ASSERT_TRUE(dispatch.NextTime());
        now_ = std::max(now_, *dispatch.NextTime());
        continue;
      }
      std::swap(under_way[random() % under_way.size()], under_way.back());
      const std::uint64_t draw = random() % 10;
      Verdict verdict =
          Of(draw < 7    ? Kind::kAnswer
             : draw == 7 ? Kind::kAgain
             : draw == 8 ? Kind::kBusy
                         : Kind::kGone);
      if (random() % 3 == 0) verdict.retry_after = milliseconds(random() % 2000);
      const auto completion = dispatch.Ended(under_way.back(), verdict, now_);
      EXPECT_EQ(completion.has_value(), draw < 7);
      EXPECT_EQ(completion ? completion->id : under_way.back(), under_way.back());
      under_way.pop_back();
      ended += completion ? 1 : 0;
      ASSERT_EQ(dispatch.WhyStopped(now_), "");
    }
    EXPECT_TRUE(under_way.empty());
    EXPECT_FALSE(dispatch.Next(now_));
  }
}

// A server that answers after a time and takes so many requests in each minute of its clock.
class LimitedServer {
 public:
  LimitedServer(int per_minute, milliseconds takes) : per_minute_(per_minute), takes_(takes) {}
  bool tells = false;  // what is left, in headers

  // Asks it for `count` rows. Returns how often it refused.
  int Serve(Dispatch& dispatch, int count, Dispatch::Time& now) {
    int added = 0, answered = 0, refused = 0;
    for (int i = 0; answered < count && i < 1'000'000; ++i) {
      while (added < count && dispatch.room() > 0) dispatch.Add(++added, 10);
      while (const auto sending = dispatch.Next(now)) Receive(sending->id, now);
      if (dispatch.NextProbe(now)) dispatch.Probed(0, Of(Kind::kBusy), now);
      const auto next = dispatch.NextTime();
      if (replies_.empty() || (next && *next < replies_.begin()->first)) {
        EXPECT_TRUE(next);
        now = std::max(now, next.value_or(now));
        continue;
      }
      auto reply = replies_.extract(replies_.begin());
      now = std::max(now, reply.key());
      const auto [id, verdict] = reply.mapped();
      refused += verdict.kind == Kind::kBusy ? 1 : 0;
      answered += dispatch.Ended(id, verdict, now) ? 1 : 0;
    }
    EXPECT_EQ(answered, count);
    return refused;
  }

 private:
  void Receive(std::int64_t id, Dispatch::Time now) {
    const auto begun = std::chrono::floor<minutes>(now);
    if (begun != minute_) left_ = per_minute_;
    minute_ = begun;
    Verdict verdict = Of(left_ > 0 ? Kind::kAnswer : Kind::kBusy);
    left_ -= left_ > 0 ? 1 : 0;
    if (tells) {
      const auto reset = std::chrono::ceil<milliseconds>(minute_ + minutes(1) - now);
      verdict.rates.requests = {per_minute_, left_, reset};
    }
    replies_.emplace(now + (left_ > 0 ? takes_ : milliseconds(1)), std::pair(id, verdict));
  }

  const int per_minute_;
  const milliseconds takes_;
  int left_ = 0;
  Dispatch::Time minute_ = Dispatch::Time::min();
  std::multimap<Dispatch::Time, std::pair<std::int64_t, Verdict>> replies_;
};

TEST_F(DispatchTest, WithinItsLimitsNoRequestIsRefusedAndTheyAreUsed) {
  DispatchOptions options = Options();
  options.max_in_flight = 64;
  options.requests_per_minute = 600;
  Dispatch dispatch(options, 1);
  LimitedServer server(600, seconds(3));
  const Dispatch::Time start = now_;
  EXPECT_EQ(server.Serve(dispatch, 3000, now_), 0);
  EXPECT_LE(now_ - start, minutes(5) * 1.04);
  EXPECT_GE(now_ - start, minutes(5));
}

TEST_F(DispatchTest, TokensAreLimitedAsWell) {
  DispatchOptions options = Options();
  options.tokens_per_minute = 6000;
  Dispatch dispatch(options, 1);
  LimitedServer server(600, milliseconds(100));  // each is of 10 tokens
  const Dispatch::Time start = now_;
  EXPECT_EQ(server.Serve(dispatch, 600, now_), 0);
  EXPECT_GE(now_ - start, seconds(58));
}

TEST_F(DispatchTest, WhatAServersHeadersAllowIsUsedAndLittleMoreIsAskedFor) {
  for (const bool tells : {true, false}) {
    DispatchOptions options;
    options.max_in_flight = 64;
    Dispatch dispatch(options, 1);
    LimitedServer server(600, seconds(3));
    server.tells = tells;
    now_ = {};
    const int refused = server.Serve(dispatch, 3000, now_);
    if (tells) {
      EXPECT_LE(refused, 64);
      EXPECT_LE(now_ - Dispatch::Time{}, minutes(5));
    } else {
      EXPECT_GT(refused, 300);  // else this test shows nothing
    }
  }
}

TEST_F(DispatchTest, AServerThatAskedForTimeIsNotAskedByAllAtOnceThen) {
  DispatchOptions options = Options();
  options.max_in_flight = 100;
  Dispatch dispatch(options, 1);
  for (int id = 1; id <= 100; ++id) dispatch.Add(id, 1);
  for (int id = 1; id <= 100; ++id) ASSERT_TRUE(dispatch.Next(now_));
  Verdict busy = Of(Kind::kBusy);
  busy.retry_after = seconds(4);
  for (int id = 1; id <= 100; ++id) dispatch.Ended(id, busy, now_);
  now_ += seconds(4);
  int sent = 0, at_once = 0, most = 0;
  while (sent < 100) {
    const Dispatch::Time before = now_;
    Await(dispatch);
    at_once = now_ == before ? at_once + 1 : 1;
    most = std::max(most, at_once);
    ++sent;
  }
  EXPECT_LE(most, 10);
  EXPECT_GE(now_, Dispatch::Time{} + seconds(6));
  EXPECT_LE(now_, Dispatch::Time{} + seconds(9));
}

TEST_F(DispatchTest, FewRetriesAreUnderWayWhileNothingIsAnsweredAndManyOnceItIs) {
  DispatchOptions options;
  options.max_in_flight = 32;
  options.backoff_first = milliseconds(1);
  Dispatch dispatch(options, 1);
  std::deque<std::int64_t> under_way;
  int next = 0, answered = 0;
  std::size_t most = 0;
  const auto turn = [&](Kind kind) {
    while (dispatch.room() > 0) dispatch.Add(++next, 1);
    while (const auto sending = dispatch.Next(now_)) under_way.push_back(sending->id);
    most = std::max(most, under_way.size());
    now_ += milliseconds(1);
    if (under_way.empty()) {
      now_ = std::max(now_, dispatch.NextTime().value());
      return;
    }
    answered += dispatch.Ended(under_way.front(), Of(kind), now_) ? 1 : 0;
    under_way.pop_front();
  };
  for (int i = 0; i < 1000; ++i) turn(Kind::kBusy);
  EXPECT_EQ(most, 32);
  EXPECT_EQ(answered, 0);
  most = 0;
  for (int i = 0; i < 1000; ++i) turn(Kind::kBusy);
  EXPECT_EQ(most, 4);
  const Dispatch::Time end = now_;
  while (answered == 0) turn(Kind::kAnswer);
  EXPECT_LE(now_ - end, seconds(30));  // the longest backoff: that of the rows, not of the quota
  for (int i = 0; i < 1000; ++i) turn(Kind::kAnswer);
  EXPECT_EQ(most, 32);
  EXPECT_GT(answered, 900);
}

}  // namespace
}  // namespace millstream
