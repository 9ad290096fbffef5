// SPDX-License-Identifier: Apache-2.0
#include "base/parse_json.h"

#include <gtest/gtest.h>

#include <string>

#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::json;

std::string Nested(std::size_t depth) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += i % 2 == 0 ? "[" : R"({"[\"\\":)";
  text += "0";
  for (std::size_t i = depth; i-- > 0;) text += i % 2 == 0 ? ']' : '}';
  return text;
}

TEST(ParseJsonTest, TextThatNestsDeeperThanABoundIsNoJson) {
  for (const std::size_t depth : {0, 1, 2, 127, 128}) {
    EXPECT_EQ(ParseJson<Json>(Nested(depth)), Json::parse(Nested(depth))) << depth;
  }
  for (const std::size_t depth : {129, 1'000'000}) {
    EXPECT_TRUE(ParseJson<Json>(Nested(depth)).is_discarded()) << depth;
  }
  EXPECT_TRUE(ParseJson<Json>(Nested(3), 2).is_discarded());
  EXPECT_FALSE(ParseJson<Json>(Nested(2), 2).is_discarded());
}

TEST(ParseJsonTest, WhatIsManyOrInAStringIsNotDeep) {
  std::string many = "[";
  for (int i = 0; i < 1000; ++i) many += R"({"a": [[]]},)";
  const std::string text(1000, '[');
  EXPECT_EQ(ParseJson<Json>(many + "0]").size(), 1001U);
  EXPECT_EQ(ParseJson<Json>("\"\\\"" + text + "\""), "\"" + text);
}

TEST(ParseJsonTest, TextThatIsNoneIsDiscarded) {
  for (const char* text : {"", "]", "[", "{\"a\":", "\"\\", "\"", "nul", "]]]][[[["}) {
    EXPECT_TRUE(ParseJson<Json>(text).is_discarded()) << text;
  }
}

}  // namespace
}  // namespace millstream
