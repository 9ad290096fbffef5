// SPDX-License-Identifier: Apache-2.0
#include "openai/suspects.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace millstream {
namespace {

std::vector<std::int64_t> UpTo(std::int64_t count) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), 1);
  return ids;
}

struct Found {
  std::set<std::int64_t> blamed;
  int deaths = 1, rounds = 0;
};

// Sends groups until there are no suspects; a server dies of each that `kills` names.
Found Search(std::int64_t count, const std::set<std::int64_t>& kills) {
  Suspects suspects;
  Found found;
  if (const auto to_blame = suspects.Die(UpTo(count))) ADD_FAILURE() << "at once: " << *to_blame;
  for (; suspects.active() && found.rounds < 10'000; ++found.rounds) {
    const std::vector<std::int64_t> group = suspects.group();
    const bool dies =
        std::any_of(group.begin(), group.end(), [&](auto id) { return kills.contains(id); });
    if (dies) {
      ++found.deaths;
      if (const auto to_blame = suspects.Die(group)) found.blamed.insert(*to_blame);
    } else {
      for (const std::int64_t id : group) suspects.Clear(id);
    }
  }
  return found;
}

TEST(SuspectsTest, TheOneThatKillsIsBlamedAfterAtMostThreeDeathsWhicheverItIs) {
  for (const std::int64_t count : {1, 2, 3, 4, 5, 16, 100}) {
    for (std::int64_t killer = 1; killer <= count; ++killer) {
      const Found found = Search(count, {killer});
      EXPECT_EQ(found.blamed, std::set<std::int64_t>{killer}) << count;
      EXPECT_GE(found.deaths, 2) << count << " " << killer;
      EXPECT_LE(found.deaths, count < 4 ? 2 : 3) << count << " " << killer;
    }
  }
}

TEST(SuspectsTest, SeveralThatKillAreBlamedEach) {
  const std::set<std::int64_t> killers{3, 4, 57};
  EXPECT_EQ(Search(100, killers).blamed, killers);
}

TEST(SuspectsTest, ADeathThatNoneIsToBlameForCostsFewRounds) {
  EXPECT_EQ(Search(10'000, {}).rounds, 100);
  EXPECT_EQ(Search(3, {}).rounds, 3);
}

TEST(SuspectsTest, OneThatWasNeverInFlightAtADeathIsNoSuspect) {
  Suspects suspects;
  EXPECT_FALSE(suspects.Die({}));
  EXPECT_FALSE(suspects.active());
  EXPECT_FALSE(suspects.Die({1, 2}));
  EXPECT_FALSE(suspects.Die({}));  // the server died of something else
  EXPECT_EQ(suspects.ids().size(), 2U);
  EXPECT_FALSE(suspects.Die({7}));  // one more: its first death
  EXPECT_EQ(suspects.Die({7}), 7);
  EXPECT_EQ(suspects.ids().size(), 2U);
}

}  // namespace
}  // namespace millstream
