// SPDX-License-Identifier: Apache-2.0
#include "base/nearest.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

TEST(NearestTest, FindsASlipOfThePenAndNothingFarther) {
  const std::vector<std::string_view> keys = {"temperature", "top_p", "seed", "prompt"};
  EXPECT_EQ(NearestName("temprature", keys), "temperature");
  EXPECT_EQ(NearestName("topp", keys), "top_p");
  EXPECT_EQ(NearestName("sede", keys), "seed");
  EXPECT_EQ(NearestName("frequency", keys), "");
  EXPECT_EQ(NearestName(std::string(1'000'000, 'x'), keys), "");
}

TEST(NearestTest, SuggestsTheNearestOrListsAFew) {
  const std::vector<std::string> keys = {"prompt", "model"};
  EXPECT_EQ(DidYouMean("modle", keys), ": did you mean 'model'?");
  EXPECT_EQ(DidYouMean("zebra", keys), ": there are 'prompt', 'model'");
  EXPECT_EQ(DidYouMean("zebra", {}), "");
}

}  // namespace
}  // namespace millstream
