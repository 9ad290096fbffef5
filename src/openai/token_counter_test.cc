// SPDX-License-Identifier: Apache-2.0
#include "openai/token_counter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "nlohmann/json.hpp"
#include "openai/testing.h"

namespace millstream {
namespace {

TEST(TokenCounterTest, TheServerThatAnsweredLastIsAskedFirst) {
  std::atomic<int> asked[2] = {}, failing = 0;
  const auto answer = [&](int server) {
    return [&, server](const std::string&) {
      ++asked[server];
      return server == failing ? StubServer::Reply(500, "")
                               : StubServer::Reply(200, R"({"tokens": [4, 5, 6]})");
    };
  };
  const StubServer first(answer(0)), second(answer(1));
  ServerAccess access;
  access.base_urls = {first.url(), second.url()};
  const TokenCounter count = CountAtServers(access, Dialect::kVllm, "m", {});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(count({{"prompt", "x"}}).ValueOrDie(), 3);
  EXPECT_EQ(asked[0], 1);
  EXPECT_EQ(asked[1], 3);
  failing = 1;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(count({{"prompt", "x"}}).ValueOrDie(), 3);
  EXPECT_EQ(asked[0], 4);
  EXPECT_EQ(asked[1], 4);
}

}  // namespace
}  // namespace millstream
