// SPDX-License-Identifier: Apache-2.0
#include "engine/dialect.h"

#include <string>

#include "gtest/gtest.h"
#include "text/answer_check.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// The body that asks for this constraint; or what is wrong.
std::string Asked(
    Dialect dialect, const std::string& constraint, Endpoint endpoint = Endpoint::kChat
) {
  Json body = {{"structured_outputs", Json::parse(constraint)}};
  const Status status = TranslateBody(dialect, endpoint, body);
  return status.ok() ? body.dump() : status.message();
}

constexpr const char* kClosed =
    R"({"json":{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],)"
    R"("additionalProperties":false}})";

TEST(DialectTest, VllmTakesConstraintsAsTheJobFileHasThem) {
  for (const char* constraint :
       {kClosed, R"({"choice":["a","b"]})", R"({"regex":"[0-9]+"})", R"({"grammar":"start: A"})"}) {
    EXPECT_EQ(
        Asked(Dialect::kVllm, constraint),
        R"({"structured_outputs":)" + std::string(constraint) + "}"
    );
  }
}

TEST(DialectTest, OpenAiFollowsASchemaStrictlyIfItCan) {
  const auto strict = [](const std::string& schema) {
    const Json body = Json::parse(Asked(Dialect::kOpenAi, R"({"json":)" + schema + "}"));
    return body["response_format"]["json_schema"]["strict"].get<bool>();
  };
  EXPECT_TRUE(strict(R"({"type":"string"})"));
  EXPECT_TRUE(strict(
      R"({"type":"object","properties":{"a":{}},"required":["a"],"additionalProperties":false})"
  ));
  EXPECT_FALSE(strict(R"({"type":"object"})"));
  EXPECT_FALSE(strict(R"({"type":"object","properties":{"a":{}},"additionalProperties":false})"));
  EXPECT_FALSE(strict(R"({"type":"array","items":{"properties":{"a":{}},"required":["a"]}})"));
  EXPECT_EQ(
      Asked(Dialect::kOpenAi, R"({"json":{"type":"string"}})"),
      R"({"response_format":{"type":"json_schema","json_schema":{"name":"answer",)"
      R"("schema":{"type":"string"},"strict":true}}})"
  );
}

TEST(DialectTest, SglangTakesAChoiceAsARegularExpressionOfLiterals) {
  const Json body =
      Json::parse(Asked(Dialect::kSglang, R"json({"choice":["a.b","(c|d)","e\\f"]})json"));
  const std::string regex = body["regex"];
  const auto check = AnswerCheck::Make(Grammar::Kind::kRegex, regex).ValueOrDie();
  for (const char* choice : {"a.b", "(c|d)", "e\\f"}) EXPECT_TRUE(check->Check(choice).ok());
  for (const char* other : {"axb", "c", "a.b(c|d)", ""}) EXPECT_FALSE(check->Check(other).ok());
  EXPECT_EQ(Asked(Dialect::kSglang, R"({"regex":"[0-9]+"})"), R"({"regex":"[0-9]+"})");
}

TEST(DialectTest, LlamaServerTakesAChoiceAsAGrammarOfLiterals) {
  EXPECT_EQ(
      Json::parse(Asked(Dialect::kLlamaServer, R"({"choice":["a \"b\"","c\\d","e\nf","größer"]})")),
      Json({{"grammar", R"(root ::= "a \"b\"" | "c\\d" | "e\x0af" | "größer")"}})
  );
  EXPECT_EQ(
      Asked(Dialect::kLlamaServer, R"({"json":{"type":"string"}})"),
      R"({"json_schema":{"type":"string"}})"
  );
}

TEST(DialectTest, WhatADialectLacksIsRefusedByName) {
  const auto refused = [](const std::string& message, const std::string& key) {
    return message.find(key) != message.npos && message.find("dialect") != message.npos;
  };
  EXPECT_TRUE(refused(Asked(Dialect::kOpenAi, R"({"choice":["a"]})"), "structured_outputs.choice"));
  EXPECT_TRUE(refused(Asked(Dialect::kOpenAi, R"({"regex":"a"})"), "structured_outputs.regex"));
  EXPECT_TRUE(
      refused(Asked(Dialect::kOpenAi, kClosed, Endpoint::kCompletions), "structured_outputs.json")
  );
  EXPECT_TRUE(refused(Asked(Dialect::kSglang, R"({"grammar":"a"})"), "structured_outputs.grammar"));
  EXPECT_TRUE(refused(Asked(Dialect::kLlamaServer, R"({"regex":"a"})"), "structured_outputs.regex")
  );
  Json body = {{"continue_final_message", true}};
  EXPECT_TRUE(refused(
      TranslateBody(Dialect::kOpenAi, Endpoint::kChat, body).message(), "continue_final_message"
  ));
  body = {{"top_k", 5}};
  EXPECT_TRUE(refused(TranslateBody(Dialect::kOpenAi, Endpoint::kChat, body).message(), "top_k"));
}

TEST(DialectTest, AKeyHasTheNameThatTheServerKnows) {
  const Json asked = {{"max_tokens", 5}, {"repetition_penalty", 1.5}};
  Json body = asked;
  EXPECT_TRUE(TranslateBody(Dialect::kLlamaServer, Endpoint::kChat, body).ok());
  EXPECT_EQ(body.dump(), R"({"max_tokens":5,"repeat_penalty":1.5})");
  body = {{"continue_final_message", true}};
  EXPECT_TRUE(TranslateBody(Dialect::kVllm, Endpoint::kChat, body).ok());
  EXPECT_EQ(body.dump(), R"({"add_generation_prompt":false,"continue_final_message":true})");
  body = {{"continue_final_message", true}};
  EXPECT_TRUE(TranslateBody(Dialect::kLlamaServer, Endpoint::kChat, body).ok());
  EXPECT_EQ(body.dump(), "{}");
  body = {{"max_tokens", 5}};
  EXPECT_TRUE(TranslateBody(Dialect::kOpenAi, Endpoint::kChat, body).ok());
  EXPECT_EQ(body.dump(), R"({"max_completion_tokens":5})");
  body = {{"max_tokens", 5}};
  EXPECT_TRUE(TranslateBody(Dialect::kOpenAi, Endpoint::kCompletions, body).ok());
  EXPECT_EQ(body.dump(), R"({"max_tokens":5})");
}

}  // namespace
}  // namespace millstream
