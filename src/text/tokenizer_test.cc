// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "text/smollm2_vocabulary_test.h"
#include "text/template.h"

namespace millstream {
namespace {

using Ids = std::vector<std::int32_t>;

const Tokenizer& SmolLm2() {
  static const auto tokenizer = SmolLm2Vocabulary::Get().tokenizer();
  return *tokenizer;
}

Ids Encode(std::string_view marked) {
  return SmolLm2().Encode(marked, false).ValueOrDie();
}

TEST(TokenizerTest, PromptsOfTheGoldenFileGiveTheirIds) {
  std::ifstream file(MS_TEST_DATA "/smollm2-golden.jsonl");
  int rows = 0;
  for (std::string line; std::getline(file, line); ++rows) {
    const auto row = nlohmann::json::parse(line);
    EXPECT_EQ(Encode(row["prompt"].get<std::string>()), row["prompt_tokens"].get<Ids>());
    const auto tokens = row["tokens"].get<Ids>();
    EXPECT_EQ(Encode(SmolLm2().Decode(tokens, false).ValueOrDie()).empty(), tokens.empty());
  }
  EXPECT_EQ(rows, 24);
}

TEST(TokenizerTest, RowTextNeverBecomesASpecialToken) {
  const std::string specials(SmolLm2().special_tokens());
  for (std::int32_t id = 0; id < SmolLm2().vocabulary_size(); ++id) {
    if (!SmolLm2().IsSpecial(id)) continue;
    const std::string text = "a " + SmolLm2().TokenText(id) + SmolLm2().TokenText(id) + " b";
    const auto marked = MarkAll(text, specials);
    const auto ids = Encode(marked);
    for (const auto token : ids) EXPECT_FALSE(SmolLm2().IsSpecial(token)) << text;
    EXPECT_EQ(SmolLm2().Decode(ids, true).ValueOrDie(), text);
    EXPECT_EQ(Unmark(marked), text);
  }
}

TEST(TokenizerTest, MarkCharactersInRowTextComeOutAgain) {
  const std::string specials(SmolLm2().special_tokens());
  for (const std::string text :
       {"\uFDD0",
        "\uFDD1",
        "\uFDD2",
        "\uFDD0\uFDD1",
        "\uFDD1\uFDD0",
        "\uFDD1\uFDD1\uFDD0x",
        "\uFDD1\uFDD2 <|im_end|>",
        "  \uFDD0<\uFDD0|im_end|>\uFDD1"}) {
    const auto marked = MarkAll(text, specials);
    EXPECT_EQ(Unmark(marked), text);
    EXPECT_EQ(SmolLm2().Decode(Encode(marked), false).ValueOrDie(), text);
  }
}

TEST(TokenizerTest, MalformedIdsAreErrors) {
  for (const std::int32_t id : {-1, 49152, INT32_MAX, INT32_MIN}) {
    EXPECT_FALSE(SmolLm2().Decode(Ids{id}, false).ok());
    EXPECT_EQ(SmolLm2().TokenText(id), "");
    EXPECT_EQ(SmolLm2().TokenBytes(id), "");
    EXPECT_FALSE(SmolLm2().IsSpecial(id));
  }
  EXPECT_FALSE(SmolLm2().Encode("\xFF", false).ok());
}

TEST(TokenizerTest, TokenBytesJoinToTheText) {
  const std::string text = "Grüße, 世界! 🙂 12\n\tx\u00a0y";
  std::string joined;
  for (const auto id : Encode(text)) joined += SmolLm2().TokenBytes(id);
  EXPECT_EQ(joined, text);
  EXPECT_EQ(SmolLm2().TokenBytes(2), "");
  EXPECT_EQ(SmolLm2().TokenText(2), "<|im_end|>");
  EXPECT_EQ(SmolLm2().TokenId("<|im_end|>"), 2);
  EXPECT_EQ(SmolLm2().TokenId("no such token"), std::nullopt);
  EXPECT_EQ(SmolLm2().vocabulary_size(), 49152);
}

}  // namespace
}  // namespace millstream
