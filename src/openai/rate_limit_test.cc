// SPDX-License-Identifier: Apache-2.0
#include "openai/rate_limit.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace millstream {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr SendTime kStart{hours(1000)};

HttpReply With(std::map<std::string, std::string> headers) {
  HttpReply reply;
  reply.headers = std::move(headers);
  return reply;
}

std::optional<milliseconds> Reset(const std::string& value) {
  return ReadRateHeaders(With({{"x-ratelimit-reset-requests", value}})).requests.reset;
}

// The most of `sent` that lie within one stretch of such length.
std::size_t MostWithin(const std::vector<SendTime>& sent, SendTime::duration length) {
  std::size_t most = 0, first = 0;
  for (std::size_t last = 0; last < sent.size(); ++last) {
    while (sent[last] - sent[first] >= length) ++first;
    most = std::max(most, last - first + 1);
  }
  return most;
}

TEST(RateLimitTest, NoMinuteHasMoreThanTheLimitAndHardlyAnyFewer) {
  std::mt19937 random(1);
  for (const int per_minute : {1, 7, 60, 1000, 60'000}) {
    RateLimit limit(per_minute);
    std::vector<SendTime> sent;
    SendTime now = kStart;
    // Whoever sends wakes late, and is away for a while once.
    while (now < kStart + minutes(5)) {
      now = std::max(now, limit.NextTime()) + std::chrono::microseconds(random() % 3000);
      if (sent.size() == 50) now += seconds(5);
      while (limit.NextTime() <= now) {
        sent.push_back(now);
        limit.Take(now, 1);
      }
    }
    EXPECT_LE(MostWithin(sent, minutes(1)), per_minute);
    EXPECT_LE(MostWithin(sent, seconds(1)), 1 + per_minute / 60);
    EXPECT_GE(sent.size(), 5 * per_minute * 93 / 100) << per_minute;
  }
  RateLimit none(0);
  for (int i = 0; i < 1000; ++i) none.Take(kStart, 1'000'000);
  EXPECT_LE(none.NextTime(), kStart);
}

TEST(RateLimitTest, WhatWasNotUsedCanBeSentAndWhatIsLargerThanAMinuteWaitsForOne) {
  RateLimit limit(6000);  // 10 ms each
  limit.Take(kStart, 600);
  EXPECT_GT(limit.NextTime(), kStart + seconds(5));
  limit.Take(kStart, -590);
  EXPECT_LT(limit.NextTime(), kStart + milliseconds(200));
  limit.Take(kStart, -400);  // of earlier ones: kept
  limit.Take(kStart, 400);
  EXPECT_LT(limit.NextTime(), kStart + milliseconds(200));
  limit.Take(kStart, std::int64_t{1} << 40);
  limit.Take(kStart, std::int64_t{1} << 40);
  EXPECT_GT(limit.NextTime(), kStart + seconds(59));
  EXPECT_LT(limit.NextTime(), kStart + seconds(62));
}

TEST(RateLimitTest, ARequestsTokensAreThoseOfItsTextAndOfItsAnswer) {
  EXPECT_EQ(EstimateTokens(std::string(400, 'x')), 100);
  EXPECT_EQ(EstimateTokens(R"({"max_tokens":5000})") / 100, 50);
  EXPECT_EQ(EstimateTokens(R"({"max_completion_tokens" : 1})"), 7);
  EXPECT_EQ(EstimateTokens(R"({"max_completion_tokens": 5000})") / 100, 50);
  EXPECT_EQ(EstimateTokens(R"({"prompt":"say \"max_tokens\":5000"})") / 100, 0);
  for (const char* body : {R"({"max_tokens":)", R"({"max_tokens":null})", R"({"max_tokens":-9})"}) {
    EXPECT_LT(EstimateTokens(body), 10) << body;
  }
}

// Answers of 1,000 tokens that no request announces, after ten seconds each.
TEST(SendRateTest, TokensOfAnswersAreExpectedOnceSomeHaveCome) {
  SendRate rate(0, 60'000);
  struct UnderWay {
    SendTime ends;
    std::int64_t counted;
  };
  std::deque<UnderWay> under_way;
  SendTime now = kStart;
  std::vector<SendTime> sent;
  while (now < kStart + minutes(10)) {
    const SendTime ends = under_way.empty() ? SendTime::max() : under_way.front().ends;
    now = std::max(now, std::min(rate.NextTime(), ends));
    if (ends <= now) {
      rate.Answered(now, 20, under_way.front().counted, 1020);
      under_way.pop_front();
    } else {
      under_way.push_back({now + seconds(10), rate.Sent(now, 20)});
      sent.push_back(now);
    }
  }
  EXPECT_LE(MostWithin(sent, minutes(1)), 75);  // 58 fit, but the first minute does not know
  std::erase_if(sent, [](SendTime time) { return time < kStart + minutes(2); });
  EXPECT_LE(MostWithin(sent, minutes(1)), 60);
  EXPECT_GE(sent.size(), 8 * 50);
}

TEST(RateHeadersTest, DurationsAreReadAsServersWriteThem) {
  EXPECT_EQ(Reset("1s"), seconds(1));
  EXPECT_EQ(Reset("6m0s"), minutes(6));
  EXPECT_EQ(Reset("250ms"), milliseconds(250));
  EXPECT_EQ(Reset("1h2m3s"), hours(1) + minutes(2) + seconds(3));
  EXPECT_EQ(Reset("2m59.56s"), milliseconds(179'560));
  EXPECT_EQ(Reset("12"), seconds(12));
  EXPECT_EQ(Reset("0.5"), milliseconds(500));
  EXPECT_EQ(Reset("0s"), seconds(0));
  EXPECT_EQ(Reset("99999999h"), hours(24));
  for (const char* garbage :
       {"", "s", "-1s", "1x", "1s2", "nan", "inf", "1e9", "soon", "1 s", "ms"})
    EXPECT_FALSE(Reset(garbage)) << garbage;
}

TEST(RateHeadersTest, CountsAreReadAndGarbageIsAsIfItWereNotThere) {
  const RateHeaders read = ReadRateHeaders(With({
      {"x-ratelimit-limit-requests", "500"},
      {"x-ratelimit-remaining-requests", "-3"},
      {"x-ratelimit-limit-tokens", "99999999999999999999"},
      {"x-ratelimit-remaining-tokens", "12 of 50"},
  }));
  EXPECT_EQ(read.requests.limit, 500);
  EXPECT_EQ(read.requests.remaining, 0);
  EXPECT_FALSE(read.requests.reset);
  EXPECT_FALSE(read.tokens.limit);
  EXPECT_FALSE(read.tokens.remaining);
}

class AllowanceTest : public testing::Test {
 protected:
  // How many requests are sent at once.
  int SendAll(int most = 100) {
    int count = 0;
    while (count < most && allowance_.NextTime(1) <= now_) {
      allowance_.Sent(now_, 1);
      sent_.push_back(now_);
      ++count;
    }
    return count;
  }
  // The first that was sent of those under way is answered.
  void Answer(const RateHeader& header) {
    allowance_.Learn(now_, sent_.front(), header);
    allowance_.Ended(sent_.front(), 1);
    sent_.pop_front();
  }
  void AnswerAll(const RateHeader& header) {
    while (!sent_.empty()) Answer(header);
  }
  static RateHeader Says(std::int64_t limit, std::int64_t remaining, milliseconds reset) {
    return {limit, remaining, reset};
  }

  Allowance allowance_;
  SendTime now_ = kStart;
  std::deque<SendTime> sent_;
};

TEST_F(AllowanceTest, NoMoreIsSentThanRemainsUntilTheReset) {
  EXPECT_EQ(SendAll(10), 10);  // nothing is known
  AnswerAll(Says(20, 7, seconds(30)));
  EXPECT_EQ(SendAll(), 7);
  EXPECT_EQ(allowance_.NextTime(1), now_ + seconds(30));
  now_ += seconds(30);
  EXPECT_EQ(SendAll(), 20);  // its limit
  EXPECT_GT(allowance_.NextTime(1), now_);
}

TEST_F(AllowanceTest, WhatIsUnderWayIsNotInAHeaderUnlessItWasSentLongBefore) {
  ASSERT_EQ(SendAll(4), 4);
  Answer(Says(20, 16, seconds(30)));
  EXPECT_EQ(SendAll(), 13);           // and three are under way
  Answer(Says(20, 19, seconds(30)));  // it was taken first
  EXPECT_EQ(SendAll(), 1);
  ASSERT_EQ(sent_.size(), 16U);
  now_ += seconds(5);
  allowance_.Ended(sent_.back(), 1);  // without a word
  sent_.pop_back();
  ASSERT_EQ(SendAll(), 1);
  now_ += milliseconds(1);
  std::swap(sent_.front(), sent_.back());
  Answer(Says(20, 3, seconds(25)));
  EXPECT_EQ(SendAll(), 3) << "the 15 of five seconds ago are in it";
  Answer(Says(20, 19, seconds(30)));  // long overtaken
  EXPECT_EQ(SendAll(), 0);
}

TEST_F(AllowanceTest, NothingThatAServerSaysStopsTheJob) {
  ASSERT_EQ(SendAll(10), 10);
  AnswerAll({5, 0, std::nullopt});  // no reset: not known
  EXPECT_EQ(SendAll(), 100);
  AnswerAll({std::nullopt, 0, seconds(2)});  // no limit: none after the reset
  EXPECT_EQ(SendAll(), 0);
  now_ += seconds(2);
  EXPECT_EQ(SendAll(), 100);
  AnswerAll(Says(5, 0, hours(24)));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(SendAll(), 0);
    now_ = allowance_.NextTime(1);
    EXPECT_EQ(SendAll(), 1) << "one looks";
  }
  EXPECT_LE(now_, kStart + minutes(11));
  while (sent_.size() > 1) sent_.pop_front();  // the others are never answered
  AnswerAll(Says(5, 4, hours(24)));
  EXPECT_EQ(SendAll(), 4);
}

TEST_F(AllowanceTest, ALimitOfWhichNoMoreIsSaidIsForgotten) {
  ASSERT_EQ(SendAll(1), 1);
  AnswerAll(Says(5, 0, seconds(1)));
  now_ += seconds(1);
  EXPECT_EQ(SendAll(), 5);
  now_ += seconds(61);
  EXPECT_EQ(SendAll(), 100);
}

TEST_F(AllowanceTest, ARequestLargerThanTheLimitIsSentWhenAllOfItIsLeft) {
  allowance_.Sent(now_, 10);
  allowance_.Learn(now_, now_, Says(100, 60, seconds(6)));
  allowance_.Ended(now_, 10);
  EXPECT_EQ(allowance_.NextTime(5000), now_ + seconds(6));
  now_ += seconds(6);
  EXPECT_LE(allowance_.NextTime(5000), now_);
  allowance_.Sent(now_, 5000);
  EXPECT_EQ(allowance_.NextTime(1), now_ + minutes(1));
}

// Requests reach the server in another order than they were sent in, and are answered in another
// again; it counts by the minute, and writes its headers when it takes a request or when it has
// answered it.
struct Disorder {
  std::int64_t limit, window;
  milliseconds answer;  // at most
  bool headers_at_end;
};
class AllowanceOfServerTest : public testing::TestWithParam<std::tuple<Disorder, int>> {};

TEST_P(AllowanceOfServerTest, IsUsedAndKept) {
  const auto& [disorder, seed] = GetParam();
  std::mt19937_64 random(seed);
  const auto draw = [&](milliseconds most) { return milliseconds(random() % (most.count() + 1)); };
  struct Request {
    SendTime sent_at;
    RateHeader header;
  };
  Allowance allowance;
  std::multimap<SendTime, Request> arrives, ends;
  std::int64_t under_way = 0, taken = 0, all_taken = 0, refused = 0;
  constexpr int kMinutes = 20;
  int minute = 0;
  SendTime now = kStart;
  while (minute < kMinutes) {
    while (under_way < disorder.window && allowance.NextTime(1) <= now) {
      allowance.Sent(now, 1);
      ++under_way;
      arrives.emplace(now + milliseconds(1) + draw(milliseconds(30)), Request{now, {}});
    }
    SendTime next = kStart + minutes(minute + 1);
    if (!arrives.empty()) next = std::min(next, arrives.begin()->first);
    if (!ends.empty()) next = std::min(next, ends.begin()->first);
    if (under_way < disorder.window) next = std::min(next, allowance.NextTime(1));
    now = std::max(now, next);
    const SendTime reset_at = kStart + minutes(minute + 1);
    const auto header = [&] {
      const auto reset = std::chrono::ceil<milliseconds>(reset_at - now);
      return RateHeader{disorder.limit, disorder.limit - taken, reset};
    };
    if (now >= reset_at) {
      ++minute;
      taken = 0;
      continue;
    }
    for (; !arrives.empty() && arrives.begin()->first <= now; arrives.erase(arrives.begin())) {
      Request request = arrives.begin()->second;
      const bool is_taken = taken < disorder.limit;
      taken += is_taken;
      all_taken += is_taken;
      refused += !is_taken;
      request.header = header();
      ends.emplace(now + (is_taken ? draw(disorder.answer) : milliseconds(1)), request);
    }
    for (; !ends.empty() && ends.begin()->first <= now; ends.erase(ends.begin())) {
      const Request request = ends.begin()->second;
      const RateHeader said = disorder.headers_at_end ? header() : request.header;
      allowance.Learn(now, request.sent_at, said);
      allowance.Ended(request.sent_at, 1);
      --under_way;
    }
  }
  EXPECT_GE(all_taken, kMinutes * disorder.limit * 95 / 100);
  EXPECT_LE(refused, std::max<std::int64_t>(disorder.window * 11 / 10 - disorder.limit, 0))
      << "but those before anything is known";
}

INSTANTIATE_TEST_SUITE_P(
    All,
    AllowanceOfServerTest,
    testing::Combine(
        testing::Values(
            Disorder{50, 32, milliseconds(20), false},
            Disorder{50, 200, milliseconds(20), true},
            Disorder{1000, 200, milliseconds(2000), true},
            Disorder{1000, 500, milliseconds(20'000), true},
            Disorder{1000, 500, milliseconds(20'000), false},
            Disorder{1000, 2000, milliseconds(100'000), false}
        ),
        testing::Range(1, 4)
    )
);

// A server that refuses nine of ten: retries take their share and no more of what is sent.
TEST(RetryQuotaTest, RetriesAreAFifthOfWhatIsSentUnlessFewAreUnderWay) {
  RetryQuota quota;
  for (int i = 0; i < 1000; ++i) quota.Retried();
  EXPECT_FALSE(quota.Allows(8, 64));
  EXPECT_TRUE(quota.Allows(7, 64));
  EXPECT_TRUE(quota.Allows(0, 1));  // and never none
  EXPECT_FALSE(quota.Allows(1, 1));
  int retries = 0;
  for (int i = 0; i < 4000; ++i) {
    quota.Answered();
    if (!quota.Allows(64, 64)) continue;
    quota.Retried();
    ++retries;
  }
  EXPECT_EQ(retries, 1000);
}

}  // namespace
}  // namespace millstream
