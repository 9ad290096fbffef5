// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

// Known answers of philox4x32-10 from Random123's kat_vectors.
TEST(RandomTest, AgreesWithThePublishedVectors) {
  EXPECT_EQ(static_cast<std::uint32_t>(RandomBits({0, 0}, 0)), 0x6627e8d5U);
  EXPECT_EQ(RandomBits({0, 0}, 0) >> 32, 0xe169c58dU);
  EXPECT_EQ(static_cast<std::uint32_t>(RandomBits({~0ULL, ~0ULL}, ~0ULL)), 0x408f276dU);
  EXPECT_EQ(RandomBits({~0ULL, ~0ULL}, ~0ULL) >> 32, 0x41c83b0eU);
}

TEST(RandomTest, UnitsLieInTheHalfOpenInterval) {
  double sum = 0;
  for (std::uint64_t t = 0; t < 10000; ++t) {
    const double unit = RandomUnit({7, 9}, t);
    ASSERT_GE(unit, 0.0);
    ASSERT_LT(unit, 1.0);
    sum += unit;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

}  // namespace
}  // namespace millstream
