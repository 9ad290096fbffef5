// SPDX-License-Identifier: Apache-2.0
#include "pipeline/reasoning.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

struct Case {
  std::string_view prompt, text, reasoning, answer;
};

class ReasoningTest : public testing::TestWithParam<Case> {};

TEST_P(ReasoningTest, IsPartedFromTheAnswer) {
  const auto& [prompt, text, reasoning, answer] = GetParam();
  const SplitText parts = SplitReasoning(prompt, text);
  EXPECT_EQ(parts.reasoning, reasoning);
  EXPECT_EQ(parts.answer, answer);
}

INSTANTIATE_TEST_SUITE_P(
    Texts,
    ReasoningTest,
    testing::Values(
        Case{"assistant\n", "<think>\nhm\n</think>\n\n yes ", "hm", "yes"},
        Case{"assistant\n", " <think>hm", "hm", ""},
        Case{"assistant\n", " yes ", "", " yes "},
        Case{"assistant\n", "<think></think>", "", ""},
        Case{"assistant\n<think>\n", "hm</think>yes", "hm", "yes"},
        Case{"assistant\n<think>\n", "hm", "hm", ""},
        Case{"<think>\n\n</think>\n\n", "yes", "", "yes"},
        Case{"<think>\n\n</think>\n\n", "</think> is a tag", "", "</think> is a tag"}
    )
);

TEST(ReasoningTest, TheAnswerBeginsAfterTheEndMark) {
  EXPECT_FALSE(AnswerHasBegun("", "<think>hm"));
  EXPECT_FALSE(AnswerHasBegun("<think>", "hm"));
  EXPECT_TRUE(AnswerHasBegun("<think>", "hm</think>"));
  EXPECT_TRUE(AnswerHasBegun("<think></think>\n", ""));
}

}  // namespace
}  // namespace millstream
