// SPDX-License-Identifier: Apache-2.0
#include "engine/bisection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <set>

namespace millstream {
namespace {

using Ids = std::vector<RequestId>;

Ids Numbers(RequestId count) {
  Ids ids;
  for (RequestId id = 0; id < count; ++id) ids.push_back(id);
  return ids;
}

struct Outcome {
  int deaths = 1;  // the first included
  std::set<RequestId> condemned, finished;
};

// Runs the suspects of one death in an engine that dies of `poison`: at once, or if `random` is
// given when it comes to it in a shuffled order.
Outcome Bisect(Ids suspects, const std::set<RequestId>& poison, std::mt19937_64* random = nullptr) {
  Outcome outcome;
  Bisection bisection;
  const auto die = [&](Ids ids) {
    if (const auto id = bisection.Die(std::move(ids))) outcome.condemned.insert(*id);
  };
  die(std::move(suspects));
  while (bisection.active()) {
    Ids group = bisection.group();
    if (random != nullptr) std::shuffle(group.begin(), group.end(), *random);
    bool died = false;
    while (!group.empty() && !died) {
      const bool is_deadly = random != nullptr
                                 ? poison.contains(group.back())
                                 : std::any_of(group.begin(), group.end(), [&](RequestId id) {
                                     return poison.contains(id);
                                   });
      if (is_deadly) {
        ++outcome.deaths;
        die(group);
        died = true;
      } else {
        EXPECT_TRUE(outcome.finished.insert(group.back()).second);
        bisection.Finish(group.back());
        group.pop_back();
      }
    }
  }
  return outcome;
}

TEST(BisectionTest, TheFirstOfAPowerOfTwoCostsLog2PlusTwoDeaths) {
  for (RequestId count = 1; count <= 256; count *= 2) {
    const Outcome outcome = Bisect(Numbers(count), {0});
    EXPECT_EQ(outcome.deaths, std::countr_zero(static_cast<unsigned>(count)) + 2) << count;
    EXPECT_EQ(outcome.condemned, (std::set<RequestId>{0}));
    EXPECT_EQ(std::ssize(outcome.finished), count - 1);
  }
}

TEST(BisectionTest, TheLastCostsThree) {
  EXPECT_EQ(Bisect(Numbers(256), {255}).deaths, 3);
}

TEST(BisectionTest, ADeathWithoutSuspectsAccusesNobody) {
  Bisection bisection;
  EXPECT_FALSE(bisection.Die({}).has_value());
  EXPECT_FALSE(bisection.active());
}

TEST(BisectionTest, WhatFinishesTheSecondTimeIsExonerated) {
  Bisection bisection;
  EXPECT_FALSE(bisection.Die({7}).has_value());
  EXPECT_TRUE(bisection.active());
  bisection.Finish(7);
  EXPECT_FALSE(bisection.active());
}

TEST(BisectionTest, AWholeGroupOfPoisonIsCondemned) {
  std::set<RequestId> all;
  for (const RequestId id : Numbers(64)) all.insert(id);
  const Outcome outcome = Bisect(Numbers(64), all);
  EXPECT_EQ(outcome.condemned, all);
  EXPECT_EQ(outcome.deaths, 1 + 62 + 2 * 64);  // each group once, each request twice
}

TEST(BisectionTest, CondemnsExactlyThePoisonWithinItsBound) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 5000; ++round) {
    const auto count = static_cast<RequestId>(random() % 256 + 1);
    std::set<RequestId> poison;
    for (auto left = random() % 8; left > 0; --left) {
      poison.insert(static_cast<RequestId>(random() % static_cast<std::uint64_t>(count)));
    }
    const Outcome outcome = Bisect(Numbers(count), poison, round % 2 == 0 ? &random : nullptr);
    ASSERT_EQ(outcome.condemned, poison);
    ASSERT_EQ(outcome.finished.size() + poison.size(), static_cast<std::size_t>(count));
    const int log2 = std::bit_width(static_cast<unsigned>(count - 1));
    ASSERT_LE(outcome.deaths, std::max<int>(1, static_cast<int>(poison.size()) * (log2 + 2)));
  }
}

}  // namespace
}  // namespace millstream
