// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <fstream>
#include <iomanip>
#include <sstream>

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

// The strings of tests/oracles/tokenizer.py, built in the same way.
class Random {
 public:
  std::uint64_t Below(std::uint64_t bound) {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return (state_ >> 33) % bound;
  }

 private:
  std::uint64_t state_ = 1;
};

void Append(char32_t code, std::string& out) {
  const auto byte = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  const auto rest = [&](int shift) { byte(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) return byte(code);
  if (code < 0x800) return byte(0xC0 | (code >> 6)), rest(0);
  if (code < 0x10000) return byte(0xE0 | (code >> 12)), rest(6), rest(0);
  byte(0xF0 | (code >> 18)), rest(12), rest(6), rest(0);
}

/// Where each character of a UTF-8 text begins, and its end.
std::vector<std::size_t> Starts(std::string_view text) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || (text[i] & 0xC0) != 0x80) starts.push_back(i);
  }
  return starts;
}

std::vector<std::string> RealTexts() {
  std::vector<std::string> texts;
  for (const auto* name : {"glosses", "shared-prefix"}) {
    std::ifstream file(std::string(MS_TEST_DATA "/") + name + ".jsonl");
    std::string system;
    for (std::string line; std::getline(file, line);) {
      const auto row = nlohmann::json::parse(line);
      texts.push_back(row["text"]);
      system = row.value("system", "");
    }
    if (!system.empty()) texts.push_back(system);
  }
  return texts;
}

std::string Real(const std::vector<std::string>& texts, Random& random) {
  const auto& text = texts[random.Below(texts.size())];
  const auto starts = Starts(text);
  const auto start = random.Below(starts.size() - 1);
  const auto end = std::min(start + 1 + random.Below(160), starts.size() - 1);
  return text.substr(starts[start], starts[end] - starts[start]);
}

std::string Hostile(Random& random) {
  static constexpr std::u32string_view kSpaces = U" \t\n\r\u00a0\u2003\u3000\u0085\u200b\u2028";
  static constexpr std::string_view kPieces[] = {
      "<|im_start|>",
      "<|im_end|>",
      "<|endoftext|>",
      "<repo_name>",
      "<|",
      "|>",
      "im_end",
      "<",
      "'s",
      "'LL",
      "'re",
      "n't"
  };
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x21, 0x7E},
      {0x30, 0x39},
      {0xA0, 0xFF},
      {0x370, 0x52F},
      {0x4E00, 0x9FFF},
      {0xAC00, 0xD7A3},
      {0x590, 0x97F},
      {0x1F300, 0x1FAFF},
      {0x300, 0x36F},
      {0x660, 0x669},
      {0xFF10, 0xFF5E},
      {0, 0x10FFFF}
  };
  std::string out;
  for (auto left = 1 + random.Below(24); left > 0; --left) {
    const auto kind = random.Below(std::size(kRanges) + 2);
    if (kind == std::size(kRanges)) {
      Append(kSpaces[random.Below(kSpaces.size())], out);
    } else if (kind > std::size(kRanges)) {
      out += kPieces[random.Below(std::size(kPieces))];
    } else {
      const auto [low, high] = kRanges[kind];
      const auto code = low + static_cast<char32_t>(random.Below(high - low + 1));
      const bool is_bad = (code >= 0xD800 && code <= 0xDFFF) || (code >= 0xFDD0 && code <= 0xFDD2);
      Append(is_bad ? U'x' : code, out);
    }
  }
  return out;
}

TEST(TokenizerTest, IdsEqualHuggingFacesOnRealAndHostileStrings) {
  constexpr int kBlock = 10;
  const auto expected =
      nlohmann::json::parse(std::ifstream(MS_TEST_DATA "/tokenizer-smollm2.json"));
  const std::string specials(SmolLm2().special_tokens());
  const auto encode = [&](const std::string& text, bool is_row_text) {
    return Encode(is_row_text ? MarkAll(text, specials) : text);
  };
  for (const auto& sample : expected["samples"]) {
    EXPECT_EQ(encode(sample["text"], sample["row_text"]), sample["ids"].get<Ids>())
        << sample["text"];
  }
  const auto texts = RealTexts();
  Random random;
  for (int block = 0; block < 1500; ++block) {
    std::uint64_t hash = 0xCBF29CE484222325U;
    const auto add = [&](std::uint32_t number) { hash = (hash ^ number) * 0x100000001B3U; };
    std::string first;
    for (int at = 0; at < kBlock; ++at) {
      const auto text = block < 1000 ? Real(texts, random) : Hostile(random);
      if (at == 0) first = text;
      for (const auto id : encode(text, at % 2 == 1)) add(static_cast<std::uint32_t>(id));
      add(0xFFFFFFFF);
    }
    std::ostringstream hex;
    hex << std::hex << std::setfill('0') << std::setw(16) << hash;
    ASSERT_EQ(hex.str(), expected["hashes"][static_cast<std::size_t>(block)])
        << "block " << block << ": " << first;
  }
}

TEST(TokenizerTest, OtherKindsOfTokenizersGiveHuggingFacesIds) {
  const auto data = nlohmann::json::parse(std::ifstream(MS_TEST_DATA "/tokenizer-families.json"));
  for (const auto& family : data["families"]) {
    const auto made = Tokenizer::FromJson(family["tokenizer"].dump());
    ASSERT_TRUE(made.ok()) << made.status();
    const Tokenizer& tokenizer = **made;
    for (const auto& sample : family["cases"]) {
      const std::string text = sample["text"];
      SCOPED_TRACE(family["name"].get<std::string>() + ": " + text);
      EXPECT_EQ(tokenizer.Encode(text, false).ValueOrDie(), sample["ids"].get<Ids>());
      EXPECT_EQ(tokenizer.Encode(text, true).ValueOrDie(), sample["with_special"].get<Ids>());
      const auto row_ids = sample["row_ids"].get<Ids>();
      EXPECT_EQ(
          tokenizer.Encode(MarkAll(text, tokenizer.special_tokens()), false).ValueOrDie(), row_ids
      );
      EXPECT_EQ(
          tokenizer.Decode(row_ids, false).ValueOrDie(), sample["decoded"].get<std::string>()
      );
    }
  }
}

TEST(TokenizerTest, UnusableVocabulariesAreRefused) {
  for (const std::string json :
       {"",
        "{",
        "[]",
        R"({"model":{"type":"BPE","vocab":{},"merges":[]}})",
        R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["b c"]}})",
        R"({"model":{"type":"WordLevel","vocab":{"a":4000000000},"unk_token":"a"}})",
        R"({"model":{"type":"Nonsense"}})",
        R"({"decoder":7,"model":{}})"}) {
    EXPECT_TRUE(Tokenizer::FromJson(json).status().IsInvalid()) << json;
  }
  const auto refusal = [](auto change) {
    auto vocabulary = SmolLm2Vocabulary::Get().view();
    change(vocabulary);
    return Tokenizer::FromGguf(vocabulary).status();
  };
  const std::vector<std::string_view> twice = {"a", "b", "a"};
  const std::vector<std::string_view> merges = {"a"};
  const std::vector<std::int32_t> types = {1};
  using Vocabulary = GgufVocabulary;
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.tokens = twice, v.token_types = {}, v.merges = {}; }
  ).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.tokens = {}; }).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.merges = merges; }).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.token_types = types; }).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.bos_token = 49152; }).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.eos_token = -7; }).IsInvalid());
  EXPECT_TRUE(refusal([&](Vocabulary& v) { v.model = "llama"; }).IsInvalid());
  EXPECT_EQ(
      refusal([](Vocabulary& v) { v.model = "rwkv"; }).message(),
      "tokenizer model is not supported: \"rwkv\"; supported are \"gpt2\" and \"llama\""
  );
  EXPECT_NE(
      refusal([](Vocabulary& v) { v.pre = "tekken"; }).message().find("supported are smollm"),
      std::string::npos
  );
}

// A vocabulary whose merges follow from its scores, as transformers converts it.
TEST(TokenizerTest, SentencePieceVocabulariesOfGgufFilesFallBackToBytes) {
  std::vector<std::string> owned = {"<unk>", "<s>", "</s>"};
  for (int byte = 0; byte < 256; ++byte) {
    std::ostringstream name;
    name << "<0x" << std::hex << std::uppercase << std::setfill('0') << std::setw(2) << byte << ">";
    owned.push_back(name.str());
  }
  for (const auto* piece : {"he", "▁a", "llo", "▁hello", "ll", "▁he", "▁", "h", "e", "l", "o", "a"})
    owned.emplace_back(piece);
  const std::vector<std::string_view> tokens(owned.begin(), owned.end());
  std::vector<std::int32_t> types(tokens.size(), 1);
  std::vector<float> scores(tokens.size(), 0);
  types[0] = 2;
  types[1] = types[2] = 3;
  for (std::size_t i = 3; i < 259; ++i) types[i] = 6;
  for (std::size_t i = 259; i < tokens.size(); ++i) scores[i] = -static_cast<float>(i - 258);
  const auto tokenizer = Tokenizer::FromGguf({.model = "llama",
                                              .pre = "default",
                                              .tokens = tokens,
                                              .token_types = types,
                                              .scores = scores,
                                              .merges = {},
                                              .bos_token = 1,
                                              .eos_token = 2,
                                              .unknown_token = 0,
                                              .add_bos = true})
                             .ValueOrDie();
  EXPECT_EQ(tokenizer->Encode("hello a", true).ValueOrDie(), (Ids{1, 262, 260}));
  EXPECT_EQ(
      tokenizer->Encode("hé</s>", false).ValueOrDie(), (Ids{265, 266, 3 + 0xC3, 3 + 0xA9, 2})
  );
  EXPECT_EQ(tokenizer->Decode(Ids{1, 262, 260, 3 + 0xC3, 3 + 0xA9}, true).ValueOrDie(), "hello aé");
  EXPECT_EQ(tokenizer->TokenBytes(262), " hello");
  EXPECT_EQ(tokenizer->TokenBytes(3 + 0xC3), "\xC3");
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
