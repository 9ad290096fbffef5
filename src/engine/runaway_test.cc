// SPDX-License-Identifier: Apache-2.0
#include "engine/runaway.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace millstream {
namespace {

using Tokens = std::vector<std::int32_t>;

Tokens Block(std::int32_t length) {
  Tokens block;
  for (std::int32_t token = 0; token < length; ++token) block.push_back(100 + token);
  return block;
}

/// The first `length` tokens of `block`, over and over, after `before`.
Tokens Repeated(const Tokens& block, std::size_t length, Tokens before = {1, 2, 3}) {
  for (std::size_t i = 0; i < length; ++i) before.push_back(block[i % block.size()]);
  return before;
}

/// How many tokens it takes until the guard says that they repeat themselves; 0: it does not.
std::size_t Caught(const Tokens& tokens) {
  RunawayGuard guard;
  for (std::size_t count = 1; count <= tokens.size(); ++count) {
    guard.Take(std::span(tokens).first(count), "x");
    if (guard.is_repetition()) return count;
  }
  return 0;
}

TEST(RunawayGuardTest, SeesABlockThatIsRepeatedOftenAndForLong) {
  EXPECT_EQ(Caught(Repeated(Block(1), 2000)), 3U + 256);
  EXPECT_EQ(Caught(Repeated(Block(3), 2000)), 3U + 256);
  EXPECT_EQ(Caught(Repeated(Block(16), 2000)), 3U + 256);
  EXPECT_EQ(Caught(Repeated(Block(17), 2000)), 3U + 16 * 17);
  EXPECT_EQ(Caught(Repeated(Block(64), 2000)), 3U + 16 * 64);
  EXPECT_EQ(Caught(Repeated(Block(64), 16 * 64 - 1)), 0U);
  EXPECT_EQ(Caught(Repeated(Block(65), 20'000)), 0U);
}

TEST(RunawayGuardTest, LeavesAloneWhatIsShortOrChanges) {
  EXPECT_EQ(Caught(Repeated({7}, 100)), 0U);     // a ruler
  EXPECT_EQ(Caught(Repeated({7, 8}, 255)), 0U);  // a row of numbers
  Tokens lines;                                  // a table whose rows count
  for (std::int32_t row = 0; row < 300; ++row) {
    for (const std::int32_t cell : {7, 8, 1000 + row, 9}) lines.push_back(cell);
  }
  EXPECT_EQ(Caught(lines), 0U);
  Tokens changed = Repeated(Block(3), 255);
  changed[200] = 5;
  EXPECT_EQ(Caught(Repeated(Block(3), 150, changed)), 0U);
  EXPECT_GT(Caught(Repeated(Block(3), 300, changed)), 0U);
}

// Against the definition, looked up anew after each token, in texts that repeat and change.
TEST(RunawayGuardTest, IsItsDefinition) {
  const auto is_repetition = [](std::span<const std::int32_t> tokens) {
    for (std::size_t period = 1; period <= 64; ++period) {
      const std::size_t length = std::max<std::size_t>(256, 16 * period);
      if (tokens.size() < length) continue;
      const auto end = tokens.last(length);
      if (std::equal(end.begin() + static_cast<std::ptrdiff_t>(period), end.end(), end.begin())) {
        return true;
      }
    }
    return false;
  };
  std::mt19937 random(3);
  int caught = 0;
  for (int round = 0; round < 40; ++round) {
    Tokens tokens;
    while (tokens.size() < 2000) {
      Tokens block;
      for (auto n = 1 + random() % 70; n > 0; --n) {
        block.push_back(static_cast<std::int32_t>(random() % 3));
      }
      tokens = Repeated(block, random() % 900, tokens);
    }
    RunawayGuard guard;
    for (std::size_t count = 1; count <= tokens.size(); ++count) {
      const auto answer = std::span<const std::int32_t>(tokens).first(count);
      guard.Take(answer, "x");
      ASSERT_EQ(guard.is_repetition(), is_repetition(answer)) << round << " at " << count;
      caught += guard.is_repetition() ? 1 : 0;
    }
  }
  EXPECT_GT(caught, 1000);
}

TEST(RunawayGuardTest, SeesTokensThatAddNothingButWhiteSpace) {
  RunawayGuard guard;
  Tokens tokens;
  const auto take = [&](std::string_view bytes) {
    tokens.push_back(static_cast<std::int32_t>(tokens.size()));
    guard.Take(tokens, bytes);
  };
  for (int i = 0; i < 63; ++i) take(i % 3 == 0 ? "\n\t \r" : i % 3 == 1 ? "  " : "");
  EXPECT_FALSE(guard.is_white_space());
  take(" a");
  for (int i = 0; i < 63; ++i) take("\n");
  EXPECT_FALSE(guard.is_white_space());
  take("\xc2");  // the first byte of another character
  for (int i = 0; i < 63; ++i) take("\n");
  EXPECT_FALSE(guard.is_white_space());
  take("\v\f");
  EXPECT_TRUE(guard.is_white_space());
  EXPECT_FALSE(guard.is_repetition());
  take("and on");
  EXPECT_FALSE(guard.is_white_space());
}

}  // namespace
}  // namespace millstream
