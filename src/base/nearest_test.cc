// SPDX-License-Identifier: Apache-2.0
#include "base/nearest.h"

#include <gtest/gtest.h>

#include <vector>

namespace millstream {
namespace {

TEST(NearestTest, FindsASlipOfThePenAndNothingFarther) {
  const std::vector<std::string> keys = {"prompt", "model", "max_tokens"};
  EXPECT_EQ(NearestName("promt", keys), "prompt");
  EXPECT_EQ(NearestName("max_token", keys), "max_tokens");
  EXPECT_EQ(NearestName("zebra", keys), std::nullopt);
  EXPECT_EQ(DidYouMean("modle", keys), ": did you mean 'model'?");
  EXPECT_EQ(DidYouMean("zebra", keys), ": there are 'prompt', 'model', 'max_tokens'");
}

}  // namespace
}  // namespace millstream
