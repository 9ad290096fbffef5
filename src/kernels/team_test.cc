// SPDX-License-Identifier: Apache-2.0
#include "kernels/team.h"

#include <gtest/gtest.h>

#include <vector>

namespace millstream::kernels {
namespace {

TEST(TeamTest, RunsEachPieceOnceWhateverTheThreads) {
  for (const int threads : {1, 2, 3, 5}) {
    Team team(threads);
    EXPECT_EQ(team.size(), threads);
    for (const std::int64_t count : {0, 1, 7, 100}) {
      for (const std::int64_t grain : {1, 3, 1000}) {
        std::vector<int> runs(static_cast<std::size_t>(count), 0);
        team.For(count, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++runs[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(runs, std::vector<int>(static_cast<std::size_t>(count), 1));
      }
    }
  }
}

TEST(TeamTest, OneLoopSeesWhatTheLastOneWrote) {
  Team team(3);
  std::vector<std::int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    team.For(64, 1, [&](std::int64_t begin, std::int64_t) {
      const auto next = static_cast<std::size_t>((begin + 1) % 64);
      const auto at = static_cast<std::size_t>(begin);
      if (round % 2 == 0) values[at] += 1;
      if (round % 2 == 1 && next % 2 == 1) values[at] = values[next];
    });
  }
  for (const std::int64_t value : values) EXPECT_EQ(value, 1000);
}

}  // namespace
}  // namespace millstream::kernels
