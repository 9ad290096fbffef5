// SPDX-License-Identifier: Apache-2.0
#include "engine/watchdog.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

using std::chrono::seconds;

class WatchdogTest : public testing::Test {
 protected:
  /// Looks each second until it finds a hang; how many it took, at most 1000.
  int LooksUntilHung() {
    for (int looks = 1; looks < 1000; ++looks) {
      now_ += seconds(1);
      if (dog_.IsHung(now_, true, stats_)) return looks;
    }
    return 1000;
  }
  bool Step(seconds time) {
    for (seconds passed(0); passed < time; passed += seconds(1)) {
      now_ += seconds(1);
      if (passed + seconds(1) == time) ++stats_.steps;
      if (dog_.IsHung(now_, true, stats_)) return false;
    }
    return true;
  }

  Watchdog dog_{seconds(60)};
  Watchdog::TimePoint now_{seconds(1000)};
  EngineStats stats_;
};

TEST_F(WatchdogTest, NoProgressForTheLimitIsAHang) {
  EXPECT_FALSE(dog_.IsHung(now_, false, stats_));
  EXPECT_EQ(LooksUntilHung(), 61);
}

TEST_F(WatchdogTest, AnIdleEngineNeverHangs) {
  for (int look = 0; look < 100; ++look) {
    now_ += seconds(60);
    EXPECT_FALSE(dog_.IsHung(now_, false, stats_));
  }
  EXPECT_EQ(LooksUntilHung(), 61);
}

TEST_F(WatchdogTest, LongStepsGetTwentyOfThem) {
  for (int step = 0; step < 9; ++step) EXPECT_TRUE(Step(seconds(10)));
  EXPECT_EQ(LooksUntilHung(), 201);
  ++stats_.completion_tokens;
  EXPECT_FALSE(dog_.IsHung(now_, true, stats_));
}

TEST_F(WatchdogTest, ALongSleepOfItsOwnIsNoHang) {
  EXPECT_FALSE(dog_.IsHung(now_, true, stats_));
  now_ += std::chrono::hours(5);
  EXPECT_FALSE(dog_.IsHung(now_, true, stats_));
}

}  // namespace
}  // namespace millstream
