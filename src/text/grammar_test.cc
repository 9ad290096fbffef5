// SPDX-License-Identifier: Apache-2.0
#include "text/grammar.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <regex>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "text/smollm2_vocabulary_test.h"

namespace millstream {
namespace {

constexpr std::int32_t kEnd = 2;  // <|im_end|>
constexpr std::int32_t kStops[] = {0, kEnd};

class GrammarTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = SmolLm2Vocabulary::Get().tokenizer();
    compiler_ = GrammarCompiler::Make(tokenizer_, kStops).ValueOrDie();
  }
  static void TearDownTestSuite() {
    compiler_.reset();
    tokenizer_.reset();
  }

  static std::unique_ptr<GrammarMatcher> Match(Grammar::Kind kind, std::string_view source) {
    const auto grammar = compiler_->Compile(kind, source);
    EXPECT_TRUE(grammar.ok()) << grammar.status();
    return GrammarMatcher::Make(**grammar).ValueOrDie();
  }

  static std::vector<std::int32_t> Allowed(GrammarMatcher& matcher) {
    std::vector<std::uint32_t> mask(
        (static_cast<std::size_t>(tokenizer_->vocabulary_size()) + 31) / 32
    );
    EXPECT_TRUE(matcher.Mask(mask).ok());
    std::vector<std::int32_t> allowed;
    for (std::int32_t id = 0; id < tokenizer_->vocabulary_size(); ++id) {
      if ((mask[static_cast<std::size_t>(id) / 32] >> (id % 32) & 1U) != 0) allowed.push_back(id);
    }
    return allowed;
  }

  /// Walks at random, ends as soon as it may after `num_tokens`; nullopt if the walk is too long.
  static std::optional<std::string> Walk(
      GrammarMatcher& matcher, std::mt19937& random, int num_tokens = 0
  ) {
    std::vector<std::int32_t> ids;
    for (int step = 0; step < 400; ++step) {
      const auto allowed = Allowed(matcher);
      EXPECT_FALSE(allowed.empty());
      const bool may_end = std::find(allowed.begin(), allowed.end(), kEnd) != allowed.end();
      EXPECT_EQ(may_end, matcher.IsComplete());
      if (may_end && (step >= num_tokens || allowed.size() == std::size(kStops))) {
        EXPECT_TRUE(matcher.Accept(kEnd).ok());
        EXPECT_TRUE(matcher.IsStopped());
        return tokenizer_->Decode(ids, false).ValueOrDie();
      }
      const auto token = allowed[random() % allowed.size()];
      if (tokenizer_->IsSpecial(token)) continue;
      EXPECT_TRUE(matcher.Accept(token).ok());
      ids.push_back(token);
    }
    return std::nullopt;
  }

  static Status Refusal(Grammar::Kind kind, std::string_view source) {
    return compiler_->Compile(kind, source).status();
  }

  static std::shared_ptr<const Tokenizer> tokenizer_;
  static std::unique_ptr<GrammarCompiler> compiler_;
};

std::shared_ptr<const Tokenizer> GrammarTest::tokenizer_;
std::unique_ptr<GrammarCompiler> GrammarTest::compiler_;

TEST_F(GrammarTest, RandomWalksOverAChoiceGiveEveryChoiceAndNothingElse) {
  const std::vector<std::string> choices = {
      "yes", "no", "yes and no", "a \"b\" \\ /c/", "Grüße 🙂", " x", "0"
  };
  std::mt19937 random(1);
  std::vector<std::string> seen;
  for (int i = 0; i < 150; ++i) {
    const auto matcher = Match(Grammar::Kind::kChoice, nlohmann::json(choices).dump());
    const auto text = Walk(*matcher, random, i % 3);
    ASSERT_TRUE(text.has_value());
    EXPECT_NE(std::find(choices.begin(), choices.end(), *text), choices.end()) << *text;
    seen.push_back(*text);
  }
  for (const auto& choice : choices)
    EXPECT_NE(std::find(seen.begin(), seen.end(), choice), seen.end()) << choice;
}

TEST_F(GrammarTest, JsonHasNoFreeWhiteSpaceAndFitsItsSchema) {
  constexpr std::string_view kSchema = R"({"type": "object", "additionalProperties": false,
      "properties": {"label": {"enum": ["good", "bad"]}, "n": {"type": "integer", "minimum": 3, "maximum": 12},
                     "ok": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
      "required": ["label", "n", "ok", "tags"]})";
  std::mt19937 random(2);
  for (int i = 0; i < 20; ++i) {
    const auto text = Walk(*Match(Grammar::Kind::kJsonSchema, kSchema), random);
    ASSERT_TRUE(text.has_value());
    const auto value = nlohmann::ordered_json::parse(*text);
    EXPECT_EQ(value.dump(), *text);
    EXPECT_TRUE(value["label"] == "good" || value["label"] == "bad");
    EXPECT_GE(value["n"].get<int>(), 3);
    EXPECT_LE(value["n"].get<int>(), 12);
    EXPECT_TRUE(value["ok"].is_boolean());
    EXPECT_LE(value["tags"].size(), 2U);
    EXPECT_EQ(value.size(), 4U);
  }
}

TEST_F(GrammarTest, RegexAndLarkGiveWhatTheyDescribe) {
  std::mt19937 random(3);
  const std::regex date("[0-9]{4}-[01][0-9] (a|bc)?");
  for (int i = 0; i < 20; ++i) {
    const auto text = Walk(*Match(Grammar::Kind::kRegex, "[0-9]{4}-[01][0-9] (a|bc)?"), random, i);
    ASSERT_TRUE(text.has_value());
    EXPECT_TRUE(std::regex_match(*text, date)) << *text;
  }
  const auto text = Walk(*Match(Grammar::Kind::kLark, "start: \"(\" start? \")\""), random);
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(
      std::count(text->begin(), text->end(), '('), std::count(text->begin(), text->end(), ')')
  );
}

TEST_F(GrammarTest, SpecialTokensAreNeverPartOfAnAnswer) {
  const auto matcher = Match(Grammar::Kind::kRegex, "(.|\\n)*");
  for (const auto id : Allowed(*matcher)) {
    EXPECT_TRUE(!tokenizer_->IsSpecial(id) || id == 0 || id == kEnd) << tokenizer_->TokenText(id);
  }
  EXPECT_FALSE(matcher->Accept(1).ok());
  EXPECT_FALSE(matcher->Accept(-1).ok());
  EXPECT_FALSE(matcher->Accept(49152).ok());
}

TEST_F(GrammarTest, ARefusedTokenChangesNothing) {
  const auto matcher = Match(Grammar::Kind::kChoice, R"(["yes"])");
  EXPECT_FALSE(matcher->Accept(kEnd).ok());
  EXPECT_FALSE(matcher->Accept(*tokenizer_->TokenId("no")).ok());
  EXPECT_FALSE(matcher->IsComplete());
  EXPECT_TRUE(matcher->Accept(*tokenizer_->TokenId("yes")).ok());
  EXPECT_TRUE(matcher->IsComplete());
  EXPECT_TRUE(matcher->IsStopped());
  EXPECT_EQ(Allowed(*matcher), (std::vector<std::int32_t>(std::begin(kStops), std::end(kStops))));
}

TEST_F(GrammarTest, WhatIsNotAConstraintIsRefusedWithAReason) {
  const std::pair<Grammar::Kind, std::string_view> cases[] = {
      {Grammar::Kind::kJsonSchema, "{"},
      {Grammar::Kind::kJsonSchema, "[]"},
      {Grammar::Kind::kJsonSchema, R"({"type":"nonsense"})"},
      {Grammar::Kind::kJsonSchema, R"({"$ref":"https://example.com/schema.json"})"},
      {Grammar::Kind::kJsonSchema, R"({"$ref":"#/$defs/missing"})"},
      {Grammar::Kind::kRegex, "(a"},
      {Grammar::Kind::kRegex, "(a)\\1"},
      {Grammar::Kind::kLark, ""},
      {Grammar::Kind::kLark, "start: missing"},
      {Grammar::Kind::kLark, "{\"grammars\":[]}"},
      {Grammar::Kind::kChoice, "[]"},
      {Grammar::Kind::kChoice, "[1]"},
      {Grammar::Kind::kChoice, R"([""])"},
      {Grammar::Kind::kChoice, "yes"},
  };
  for (const auto& [kind, source] : cases) {
    const auto status = Refusal(kind, source);
    EXPECT_TRUE(status.IsInvalid()) << source;
    EXPECT_FALSE(status.message().empty());
    EXPECT_EQ(status.message().find("0x"), std::string::npos) << status.message();
  }
}

TEST_F(GrammarTest, CompilingIsBoundedInTime) {
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += R"({"type":"array","items":)";
  deep += "true" + std::string(2000, '}');
  std::string wide = R"({"type":"object","properties":{)";
  for (int i = 0; i < 1000; ++i) {
    wide.append(i > 0 ? ",\"p" : "\"p").append(std::to_string(i)).append(R"(":{"type":"string"})");
  }
  wide += "}}";
  const std::pair<Grammar::Kind, std::string> cases[] = {
      {Grammar::Kind::kRegex, "(a+)+b"},
      {Grammar::Kind::kRegex, "((a{1,100}){1,100}){1,100}"},
      {Grammar::Kind::kRegex, "(a|aa)*(b|bb)*c{1,5000}"},
      {Grammar::Kind::kRegex, "(.*a){40}"},
      {Grammar::Kind::kRegex, ".*a.{30}"},
      {Grammar::Kind::kRegex, std::string(20000, '(') + std::string(20000, ')')},
      {Grammar::Kind::kLark, "start: " + std::string(20000, '(') + "\"a\"" + std::string(20000, ')')
      },
      {Grammar::Kind::kJsonSchema, deep},
      {Grammar::Kind::kJsonSchema, wide},
      {Grammar::Kind::kJsonSchema, R"({"type":"string","pattern":"^(a+)+b$","maxLength":100000})"},
      {Grammar::Kind::kJsonSchema, R"({"allOf":[{"$ref":"#"},{"$ref":"#"}]})"},
  };
  for (const auto& [kind, source] : cases) {
    const auto start = std::chrono::steady_clock::now();
    const auto grammar = compiler_->Compile(kind, source);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_LT(took.count(), 2.0) << source.substr(0, 60);
  }
}

}  // namespace
}  // namespace millstream
