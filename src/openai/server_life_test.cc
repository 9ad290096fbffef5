// SPDX-License-Identifier: Apache-2.0
#include "openai/server_life.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using Action = ServerLife::Action;

class ServerLifeTest : public testing::Test {
 protected:
  void BecomeReady() {
    ASSERT_EQ(life_.Next(now_), Action::kStart);
    ASSERT_EQ(life_.Next(now_), Action::kCheck);
    life_.Checked(true, now_);
    ASSERT_TRUE(life_.is_ready());
  }
  ServerLife life_{ServerLifeOptions()};
  ServerLife::Time now_{};
};

TEST_F(ServerLifeTest, IsCheckedUntilItIsReadyHoweverLongThatTakes) {
  ASSERT_EQ(life_.Next(now_), Action::kStart);
  const auto start = now_;
  while (now_ - start < hours(1)) {
    ASSERT_EQ(life_.Next(now_), Action::kCheck);
    EXPECT_EQ(life_.Next(now_), Action::kNone);  // one at a time
    now_ += seconds(3);
    life_.Checked(false, now_);
    EXPECT_EQ(life_.Next(now_), Action::kNone);
    ASSERT_GT(*life_.NextTime(), now_);
    now_ = *life_.NextTime();
  }
  EXPECT_FALSE(life_.has_been_ready());
  ASSERT_EQ(life_.Next(now_), Action::kCheck);
  life_.Checked(true, now_);
  EXPECT_TRUE(life_.is_ready());
  EXPECT_FALSE(life_.NextTime());
}

TEST_F(ServerLifeTest, OneThatIsNeverReadyIsKilledAtLast) {
  ASSERT_EQ(life_.Next(now_), Action::kStart);
  ASSERT_EQ(life_.Next(now_), Action::kCheck);  // which gets no answer
  now_ = *life_.NextTime();
  EXPECT_EQ(life_.Next(now_), Action::kKill);
  EXPECT_EQ(life_.Next(now_), Action::kNone);
}

TEST_F(ServerLifeTest, OneThatWorkedIsStartedAgainAtOnceAndThenEverLater) {
  BecomeReady();
  life_.Replied();
  life_.Died(now_);
  EXPECT_EQ(life_.Next(now_), Action::kStart);
  ServerLife::Time::duration last{};
  for (int death = 2; death < 5; ++death) {
    life_.Died(now_);
    EXPECT_EQ(life_.Next(now_), Action::kNone);
    const auto wait = *life_.NextTime() - now_;
    EXPECT_GT(wait, last);
    last = wait;
    now_ += wait;
    ASSERT_FALSE(life_.is_given_up());
    EXPECT_EQ(life_.Next(now_), Action::kStart);
  }
  life_.Died(now_);
  EXPECT_TRUE(life_.is_given_up());
  EXPECT_EQ(life_.Next(now_ + hours(1)), Action::kNone);
  EXPECT_FALSE(life_.NextTime());
}

TEST_F(ServerLifeTest, DeathsWithARepliesInBetweenAreNeverTooMany) {
  for (int i = 0; i < 100; ++i) {
    BecomeReady();
    life_.Replied();
    life_.Died(now_);
    ASSERT_FALSE(life_.is_given_up());
  }
}

TEST_F(ServerLifeTest, HangsIfItRepliesToNothingAndThenToNoProbe) {
  BecomeReady();
  EXPECT_EQ(life_.Next(now_ + hours(5)), Action::kNone);  // nobody asks
  for (int i = 0; i < 100; ++i) {                         // it replies to some
    life_.Asked(now_);
    now_ += seconds(59);
    EXPECT_EQ(life_.Next(now_), Action::kNone);
    life_.Replied();
  }
  life_.Asked(now_);
  now_ += seconds(60);
  life_.Asked(now_);
  EXPECT_EQ(life_.Next(now_), Action::kProbe);
  EXPECT_EQ(life_.Next(now_), Action::kNone);
  now_ += minutes(9);
  life_.Replied();  // to the probe
  life_.Asked(now_);
  EXPECT_EQ(life_.Next(now_ + seconds(59)), Action::kNone);
  now_ += seconds(60);
  EXPECT_EQ(life_.Next(now_), Action::kProbe);
  EXPECT_FALSE(life_.is_killed());
  EXPECT_EQ(life_.NextTime(), now_ + minutes(10));
  now_ += minutes(10);
  EXPECT_EQ(life_.Next(now_), Action::kKill);
  EXPECT_TRUE(life_.is_killed());
  EXPECT_FALSE(life_.is_ready());
  life_.Died(now_);
  EXPECT_EQ(life_.Next(now_), Action::kStart);
}

// The silence of a life long ago is no sign of a hang.
TEST_F(ServerLifeTest, ANewLifeBeginsWithoutTheSilenceOfTheLast) {
  BecomeReady();
  life_.Asked(now_);
  life_.Died(now_);
  now_ += hours(1);
  BecomeReady();
  EXPECT_EQ(life_.Next(now_), Action::kNone);
}

}  // namespace
}  // namespace millstream
