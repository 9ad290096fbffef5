// SPDX-License-Identifier: Apache-2.0
#include "openai/window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <set>
#include <utility>

namespace millstream {
namespace {

constexpr std::int64_t kMost = 16384;

// A server that takes `seconds_of(n)` for a request that is one of n, give or take.
class SimulatedServer {
 public:
  explicit SimulatedServer(std::function<double(double)> seconds_of, std::int64_t most = kMost)
      : window(0, most), seconds_of_(std::move(seconds_of)) {}

  // Serves for so long. Returns how many were answered a second.
  double Serve(double period) {
    int answered = 0;
    const double end = now_ + period;
    while (now_ < end) {
      while (static_cast<std::int64_t>(ends_.size()) < window.size()) {
        const double some = std::uniform_real_distribution(0.5, 1.5)(random_);
        ends_.insert(now_ + some * seconds_of_(static_cast<double>(ends_.size() + 1)));
      }
      now_ = *ends_.begin();
      window.Answered(At(now_), 50 + static_cast<std::int64_t>(random_() % 100), Count());
      ends_.erase(ends_.begin());
      ++answered;
    }
    return answered / period;
  }

  SendWindow window;

 private:
  std::int64_t Count() const { return static_cast<std::int64_t>(ends_.size()); }
  static SendWindow::Time At(double time) {
    return SendWindow::Time(
        std::chrono::duration_cast<SendWindow::Time::duration>(std::chrono::duration<double>(time))
    );
  }

  const std::function<double(double)> seconds_of_;
  std::mt19937_64 random_{1};
  std::multiset<double> ends_;
  double now_ = 0;
};

// It has so many places, in each of which a request takes a second: more wait.
std::function<double(double)> Places(double places) {
  return [places](double count) { return std::max(1.0, count / places); };
}

TEST(SendWindowTest, FindsHowManyAServerDoesAtATimeWithinTwentySecondsOfAnswersOfOne) {
  for (const double places : {100, 1000, 8000}) {
    SimulatedServer server(Places(places));
    server.Serve(20);
    EXPECT_GE(server.Serve(100), places * 0.97) << places;
    EXPECT_LE(server.window.size(), places * 3) << places;
  }
}

TEST(SendWindowTest, DoesNotGrowForeverWhereThatGetsNothingMoreDone) {
  for (const double places : {4, 100, 1000}) {
    SimulatedServer server(Places(places));
    server.Serve(2000);
    EXPECT_LE(server.window.size(), std::max(200.0, places * 6)) << places;
  }
}

TEST(SendWindowTest, GrowsWhereEachMoreGetsLessDone) {
  // Twice as many at a time take little longer, until it computes all the time.
  SimulatedServer server([](double count) { return 1 + count / 500; });
  server.Serve(200);
  EXPECT_GE(server.Serve(200), 500 * 0.85);
}

TEST(SendWindowTest, GrowsAgainAfterAServerAskedForLess) {
  SimulatedServer server(Places(1000));
  server.Serve(30);
  for (int i = 0; i < 2500; ++i) server.window.Busy();
  ASSERT_LT(server.window.size(), 500);
  server.Serve(8);
  EXPECT_GE(server.Serve(20), 950);
}

TEST(SendWindowTest, GrowsFastOnceAServerCanDoMuchMore) {
  double places = 50;
  SimulatedServer server([&places](double count) { return std::max(1.0, count / places); });
  server.Serve(100);
  ASSERT_LT(server.window.size(), 200);
  places = 2000;
  server.Serve(60);
  EXPECT_GE(server.Serve(20), 1900);
}

TEST(SendWindowTest, StaysAsItIsWhereFewerAreUnderWayThanItAllows) {
  SendWindow window(0, kMost);
  const std::int64_t before = window.size();
  for (int i = 1; i < 10'000; ++i) {
    window.Answered(SendWindow::Time(std::chrono::milliseconds(10'000 / i)), 100, before / 2);
  }
  EXPECT_EQ(window.size(), before);
}

TEST(SendWindowTest, ShrinksOnceForAllThatWereUnderWayAndStaysWhereItIsFixed) {
  SendWindow window(0, kMost);
  const std::int64_t before = window.size();
  for (std::int64_t i = 0; i < before; ++i) window.Busy();
  EXPECT_LT(window.size(), before);
  EXPECT_GT(window.size(), before / 2);
  SendWindow fixed(7, kMost);
  fixed.Busy();
  EXPECT_EQ(fixed.size(), 7);
}

TEST(SendWindowTest, NeverHasMoreThanTheMost) {
  EXPECT_EQ(SendWindow(7, 5).size(), 5);
  EXPECT_EQ(SendWindow(0, 5).size(), 5);
  SimulatedServer server([](double) { return 1.0; }, 100);  // however many there are
  server.Serve(200);
  EXPECT_EQ(server.window.size(), 100);
}

}  // namespace
}  // namespace millstream
