// SPDX-License-Identifier: Apache-2.0
#include "text/answer_check.h"

#include <string>

#include "gtest/gtest.h"

namespace millstream {
namespace {

using Kind = Grammar::Kind;

testing::AssertionResult Says(const std::string& text, std::string_view part) {
  return text.find(part) == text.npos ? testing::AssertionFailure() << "not in: " << text
                                      : testing::AssertionSuccess();
}

// What is wrong with the answer; "" if nothing is.
std::string Problem(Kind kind, const std::string& source, const std::string& answer) {
  const auto check = AnswerCheck::Make(kind, source);
  EXPECT_TRUE(check.ok()) << check.status();
  return check.ok() ? (*check)->Check(answer).message() : "";
}

constexpr const char* kPerson = R"({
  "type": "object",
  "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
  "required": ["name"],
  "additionalProperties": false
})";

TEST(AnswerCheckTest, JsonFitsItsSchemaInAnyOrderAndWithWhiteSpace) {
  EXPECT_EQ(Problem(Kind::kJsonSchema, kPerson, R"({"name":"Ann","age":3})"), "");
  EXPECT_EQ(Problem(Kind::kJsonSchema, kPerson, "\n{ \"age\": 3,\t\"name\": \"Ann\" }\n"), "");
}

TEST(AnswerCheckTest, SaysWhereJsonLeavesItsSchema) {
  const auto problem = [](const std::string& answer) {
    return Problem(Kind::kJsonSchema, kPerson, answer);
  };
  EXPECT_TRUE(Says(problem(R"({"age":3})"), "name"));
  EXPECT_TRUE(Says(problem(R"({"name":"Ann","age":-1})"), "/age"));
  EXPECT_TRUE(Says(problem(R"({"name":"Ann","x":1})"), "x"));
  EXPECT_TRUE(Says(problem("Sure! Here is the JSON: {}"), "not JSON"));
  EXPECT_TRUE(Says(problem(R"({"name":"Ann"} and more)"), "not JSON"));
  EXPECT_TRUE(Says(problem(std::string(100'000, '[')), "not JSON"));
}

TEST(AnswerCheckTest, ChecksFormats) {
  const std::string day = R"({"type": "string", "format": "date"})";
  EXPECT_EQ(Problem(Kind::kJsonSchema, day, R"("2026-02-28")"), "");
  EXPECT_TRUE(Says(Problem(Kind::kJsonSchema, day, R"("2026-02-30")"), "date"));
}

TEST(AnswerCheckTest, ARegularExpressionMatchesTheWholeAnswer) {
  const std::string number = "[0-9]+(\\.[0-9]+)?";
  EXPECT_EQ(Problem(Kind::kRegex, number, "12.5"), "");
  EXPECT_TRUE(Says(Problem(Kind::kRegex, number, "12.5 kg"), "byte 4"));
  EXPECT_TRUE(Says(Problem(Kind::kRegex, number, "12."), "ends before"));
  EXPECT_TRUE(Says(Problem(Kind::kRegex, number, ""), "ends before"));
  EXPECT_EQ(Problem(Kind::kRegex, "grün|größer", "größer"), "");
}

TEST(AnswerCheckTest, AGrammarDerivesTheWholeAnswer) {
  const std::string sums = "start: NUMBER (\"+\" NUMBER)*\nNUMBER: /[0-9]+/";
  EXPECT_EQ(Problem(Kind::kLark, sums, "1+22+3"), "");
  EXPECT_TRUE(Says(Problem(Kind::kLark, sums, "1+"), "ends before"));
  EXPECT_TRUE(Says(Problem(Kind::kLark, sums, "1-2"), "byte 1"));
}

TEST(AnswerCheckTest, AChoiceIsOneOfTheTexts) {
  const std::string choices = R"(["yes", "no"])";
  EXPECT_EQ(Problem(Kind::kChoice, choices, "yes"), "");
  EXPECT_TRUE(Says(Problem(Kind::kChoice, choices, "Yes"), "none of the choices"));
  EXPECT_TRUE(Says(Problem(Kind::kChoice, choices, "yes\n"), "none of the choices"));
}

TEST(AnswerCheckTest, OneCheckServesManyAnswers) {
  const auto check = AnswerCheck::Make(Kind::kRegex, "a+b").ValueOrDie();
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(check->Check("aab").ok());
    EXPECT_FALSE(check->Check("aa").ok());
  }
}

TEST(AnswerCheckTest, RefusesWhatIsNoConstraint) {
  const auto refusal = [](Kind kind, const std::string& source) {
    return AnswerCheck::Make(kind, source).status().message();
  };
  EXPECT_TRUE(Says(refusal(Kind::kJsonSchema, "{"), "not JSON"));
  EXPECT_TRUE(Says(refusal(Kind::kJsonSchema, R"({"type": "strin"})"), "schema"));
  EXPECT_TRUE(Says(
      refusal(Kind::kJsonSchema, R"({"$ref": "https://example.com/a.json"})"), "another document"
  ));
  EXPECT_NE(refusal(Kind::kRegex, "("), "");
  EXPECT_NE(refusal(Kind::kLark, ""), "");
  EXPECT_NE(refusal(Kind::kChoice, "[]"), "");
}

}  // namespace
}  // namespace millstream
