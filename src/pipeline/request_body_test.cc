// SPDX-License-Identifier: Apache-2.0
#include "pipeline/request_body.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kChatUrl[] = "/v1/chat/completions";
constexpr char kTextUrl[] = "/v1/completions";

struct Outcome {
  std::optional<RequestProblem> problem;
  RowRequest row;
  RequestBody body;
};

Outcome Translated(const std::string& text, std::string_view url) {
  Outcome outcome;
  outcome.body.settings.sampling.temperature = 0.25;  // the model's own
  outcome.body.settings.seed = 5;
  outcome.problem = ReadRowRequest(text, "POST", url, &outcome.row);
  if (!outcome.problem) outcome.problem = ReadRequestBody(outcome.row, &outcome.body);
  return outcome;
}

// A chat whose body has these keys too.
Outcome Chat(const std::string& keys) {
  return Translated(
      R"({"messages": [{"role": "user", "content": "hi"}])" + (keys.empty() ? "" : ", " + keys) +
          "}",
      kChatUrl
  );
}
Outcome Text(const std::string& keys) {
  return Translated(R"({"prompt": "a")" + (keys.empty() ? "" : ", " + keys) + "}", kTextUrl);
}

TEST(RequestBodyTest, EachKeyHasItsMeaning) {
  const Outcome outcome =
      Chat(R"("max_tokens": 7, "min_tokens": 2, "temperature": 0.5, "top_p": 0.9,
      "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1,
      "frequency_penalty": -1, "seed": -3, "n": 4, "stop": ["a", "b"], "stop_token_ids": [1, 2],
      "ignore_eos": true, "include_stop_str_in_output": true, "add_special_tokens": true,
      "chat_template_kwargs": {"x": 1}, "continue_final_message": true,
      "add_generation_prompt": false)");
  ASSERT_FALSE(outcome.problem) << outcome.problem->message;
  const RequestBody& body = outcome.body;
  const SamplingParams& sampling = body.settings.sampling;
  EXPECT_EQ(sampling.max_tokens, 7);
  EXPECT_TRUE(body.has_max_tokens);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.min_p, 0.1);
  EXPECT_EQ(sampling.repetition_penalty, 1.5);
  EXPECT_EQ(sampling.presence_penalty, 1);
  EXPECT_EQ(sampling.frequency_penalty, -1);
  EXPECT_EQ(body.settings.seed, -3);
  EXPECT_EQ(body.n, 4);
  EXPECT_EQ(sampling.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(sampling.stop_token_ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_TRUE(sampling.ignore_eos && sampling.include_stop_str_in_output);
  EXPECT_EQ(body.add_special_tokens, true);
  EXPECT_EQ(body.chat_template_kwargs.dump(), R"({"x":1})");
  EXPECT_TRUE(body.continue_final_message && !body.add_generation_prompt);
  EXPECT_TRUE(body.ignored.empty());
}

TEST(RequestBodyTest, WhatABodyDoesNotSayIsAsBefore) {
  const Outcome outcome = Chat(R"("temperature": null, "seed": null, "stop": null, "n": null)");
  ASSERT_FALSE(outcome.problem) << outcome.problem->message;
  EXPECT_EQ(outcome.body.settings.sampling.temperature, 0.25);
  EXPECT_EQ(outcome.body.settings.seed, 5);
  EXPECT_EQ(outcome.body.n, 1);
  EXPECT_FALSE(outcome.body.has_max_tokens);
  EXPECT_TRUE(outcome.body.settings.sampling.stop.empty());
}

TEST(RequestBodyTest, MaxCompletionTokensIsMaxTokensAndHoldsIfBothStandThere) {
  for (const char* keys :
       {R"("max_completion_tokens": 3)",
        R"("max_completion_tokens": 3, "max_tokens": 9)",
        R"("max_tokens": 9, "max_completion_tokens": 3)"}) {
    const Outcome outcome = Chat(keys);
    EXPECT_EQ(outcome.body.settings.sampling.max_tokens, 3) << keys;
    EXPECT_TRUE(outcome.body.has_max_tokens);
  }
}

TEST(RequestBodyTest, ContinuingAMessageAsksForNoTurnOfTheAnswerer) {
  EXPECT_FALSE(Chat(R"("continue_final_message": true)").body.add_generation_prompt);
  EXPECT_TRUE(Chat(R"("continue_final_message": true, "add_generation_prompt": true)").problem);
}

TEST(RequestBodyTest, APromptIsOneText) {
  EXPECT_EQ(Text("").body.prompt, "a");
  EXPECT_EQ(Translated(R"({"prompt": ["b"], "echo": true})", kTextUrl).body.prompt, "b");
  for (const char* prompt : {"[]", R"(["a", "b"])", "[1, 2]", "[[1]]", "7", "{}", "null"}) {
    const auto outcome = Translated(R"({"prompt": )" + std::string(prompt) + "}", kTextUrl);
    ASSERT_TRUE(outcome.problem) << prompt;
    EXPECT_EQ(outcome.problem->param, "prompt");
  }
}

TEST(RequestBodyTest, EachFormOfAConstraintIsKnown) {
  using Kind = Grammar::Kind;
  const std::map<std::string, std::pair<Kind, std::string>> forms{
      {R"("response_format": {"type": "json_object"})", {Kind::kJsonSchema, R"({"type":"object"})"}
      },
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"b": 1, "a": 2}}})",
       {Kind::kJsonSchema, R"({"b":1,"a":2})"}},
      {R"("structured_outputs": {"json": {"b": 1}})", {Kind::kJsonSchema, R"({"b":1})"}},
      {R"("structured_outputs": {"json": "{\"b\": 1}", "regex": null})",
       {Kind::kJsonSchema, R"({"b":1})"}},
      {R"("structured_outputs": {"regex": "x+"})", {Kind::kRegex, "x+"}},
      {R"("structured_outputs": {"choice": ["a", "b"]})", {Kind::kChoice, R"(["a","b"])"}},
      {R"("structured_outputs": {"grammar": "start: \"a\""})", {Kind::kLark, "start: \"a\""}},
      {R"("structured_outputs": {"json_object": true})", {Kind::kJsonSchema, R"({"type":"object"})"}
      },
      {R"("guided_json": {"b": 1})", {Kind::kJsonSchema, R"({"b":1})"}},
      {R"("guided_regex": "x+")", {Kind::kRegex, "x+"}},
      {R"("guided_choice": ["a"])", {Kind::kChoice, R"(["a"])"}},
      {R"("guided_grammar": "start: \"a\"")", {Kind::kLark, "start: \"a\""}},
      // llama.cpp's server's, and SGLang's.
      {R"("json_schema": {"b": 1})", {Kind::kJsonSchema, R"({"b":1})"}},
      {R"("json_schema": "{\"b\": 1}")", {Kind::kJsonSchema, R"({"b":1})"}},
      {R"("regex": "x+")", {Kind::kRegex, "x+"}},
  };
  for (const auto& [keys, constraint] : forms) {
    const Outcome outcome = Chat(keys);
    ASSERT_FALSE(outcome.problem) << keys << outcome.problem->message;
    EXPECT_EQ(outcome.body.constraint, constraint) << keys;
  }
  EXPECT_FALSE(Chat(R"("response_format": {"type": "text"})").body.constraint);
  EXPECT_TRUE(Chat(R"("response_format": {"type": "json_object"}, "guided_regex": "x")").problem);
}

TEST(RequestBodyTest, WhatWouldChangeTheAnswerIsRefusedUnlessItAsksForNothing) {
  // Of each, a value that asks for something, and one that does not.
  const std::map<std::string, std::pair<std::string, std::string>> keys{
      {"tools", {R"([{"type": "function"}])", "[]"}},
      {"functions", {"[{}]", "[]"}},
      {"tool_choice", {R"("required")", R"("none")"}},
      {"function_call", {R"({"name": "f"})", R"("auto")"}},
      {"logit_bias", {R"({"1": 2})", "{}"}},
      {"logprobs", {"true", "false"}},
      {"top_logprobs", {"2", "0"}},
      {"prompt_logprobs", {"0", "null"}},
      {"best_of", {"2", "1"}},
      {"suffix", {R"("x")", R"("")"}},
      {"echo", {"true", "false"}},
      {"modalities", {R"(["text", "audio"])", R"(["text"])"}},
      {"audio", {"{}", "null"}},
      {"use_beam_search", {"true", "false"}},
      {"skip_special_tokens", {"false", "true"}},
      {"truncate_prompt_tokens", {"5", "null"}},
      {"chat_template", {R"("x")", "null"}},
      {"reasoning_effort", {R"("low")", "null"}},
      {"bad_words", {R"(["x"])", "[]"}},
      {"allowed_token_ids", {"[1]", "[]"}},
      {"structured_outputs", {R"({"structural_tag": "x"})", R"({"structural_tag": null})"}},
      // Of llama.cpp's server:
      {"grammar", {R"("root ::= \"a\"")", R"("")"}},
      {"n_predict", {"7", "null"}},
      {"repeat_penalty", {"1.1", "1.0"}},
      {"dynatemp_range", {"0.5", "0"}},
      {"samplers", {R"(["top_k"])", "null"}},
      {"lora", {R"([{"id": 0, "scale": 1}])", "[]"}},
      {"n_probs", {"3", "0"}},
      {"typical_p", {"0.5", "1"}},
      {"top_n_sigma", {"1", "-1"}},
      {"t_max_predict_ms", {"100", "0"}},
      // Of SGLang:
      {"ebnf", {R"("root ::= \"a\"")", "null"}},
      {"stop_regex", {R"(["a+"])", "[]"}},
      {"custom_logit_processor", {R"("x")", R"("")"}},
      {"lora_path", {R"("x")", "null"}},
      // Of vLLM and others:
      {"thinking_token_budget", {"100", "null"}},
      {"thinking_budget", {"100", "null"}},
      {"enable_thinking", {"false", "null"}},
      {"thinking", {R"({"type": "enabled"})", "null"}},
      {"repetition_detection", {R"({"min_count": 2})", "{}"}},
      {"watermarking", {"true", "false"}},
      {"watermark", {"true", "false"}},
      {"no_repeat_ngram_size", {"3", "0"}},
  };
  for (const auto& [key, values] : keys) {
    const Outcome refused = Chat('"' + key + "\": " + values.first);
    ASSERT_TRUE(refused.problem) << key;
    EXPECT_EQ(refused.problem->code, "unsupported_parameter") << key;
    EXPECT_EQ(refused.problem->status, 400);
    EXPECT_TRUE(refused.problem->param.starts_with(key)) << refused.problem->param;
    const Outcome taken = Chat('"' + key + "\": " + values.second);
    EXPECT_FALSE(taken.problem) << key << ": " << taken.problem->message;
    EXPECT_TRUE(taken.body.ignored.empty()) << key;
  }
  EXPECT_NE(Chat(R"("n_predict": 7)").problem->message.find("`max_tokens`"), std::string::npos);
  // Of a text completion 0 asks for the tokens that were drawn.
  EXPECT_TRUE(Text(R"("logprobs": 0)").problem);
  EXPECT_FALSE(Text(R"("best_of": 3, "n": 3)").problem);
}

TEST(RequestBodyTest, WhatChangesNoAnswerIsIgnoredByName) {
  const Outcome outcome =
      Chat(R"("user": "me", "metadata": {}, "store": true, "service_tier": "flex", "new_key": [1])"
      );
  ASSERT_FALSE(outcome.problem);
  EXPECT_EQ(
      outcome.body.ignored,
      (std::vector<std::string>{"user", "metadata", "store", "service_tier", "new_key"})
  );
  const Outcome named = Translated(
      R"({"messages": [{"role": "user", "content": "x", "name": "Ann", "tool_calls": []}]})",
      kChatUrl
  );
  ASSERT_FALSE(named.problem);
  EXPECT_EQ(named.body.ignored, (std::vector<std::string>{"messages[].name"}));
}

TEST(RequestBodyTest, WrongValuesAreNamedByTheirKey) {
  for (const char* keys :
       {R"("temperature": "hot")",
        R"("temperature": -1)",
        R"("temperature": [])",
        R"("max_tokens": 1.5)",
        R"("max_tokens": 0)",
        R"("max_tokens": true)",
        R"("max_completion_tokens": "7")",
        R"("top_p": 2)",
        R"("n": 0)",
        R"("n": 65)",
        R"("n": 1e300)",
        R"("n": "2")",
        R"("seed": 1.5)",
        R"("seed": 18446744073709551615)",
        R"("stop": 7)",
        R"("stop": [7])",
        R"("stop": "")",
        R"("stop_token_ids": [-1])",
        R"("stop_token_ids": [99999999999])",
        R"("stop_token_ids": ["a"])",
        R"("ignore_eos": 1)",
        R"("messages": "hi")",
        R"("prompt": "hi")",
        R"("chat_template_kwargs": [])",
        R"("response_format": "json")",
        R"("response_format": {"type": 7})",
        R"("response_format": {"type": "json_schema"})",
        R"("response_format": {"type": "json_schema", "json_schema": {"schema": 1}})",
        R"("structured_outputs": [])",
        R"("guided_json": "{")",
        R"("guided_choice": [])",
        R"("guided_choice": [1])",
        R"("guided_regex": 1)",
        R"("min_tokens": 9, "max_tokens": 8)"}) {
    const Outcome outcome = Chat(keys);
    ASSERT_TRUE(outcome.problem) << keys;
    EXPECT_EQ(outcome.problem->code, "invalid_value") << keys;
    const std::string key = std::string(keys).substr(1, std::string(keys).find('"', 1) - 1);
    EXPECT_TRUE(outcome.problem->param.starts_with(key)) << keys << outcome.problem->param;
  }
}

TEST(RequestBodyTest, HostileBodiesAreRefusedAndNothingElse) {
  const auto nested = [](std::size_t depth) {
    return R"({"messages": )" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  std::string wide = "{";
  for (int i = 0; i < 1001; ++i) wide += (i == 0 ? "\"" : ", \"") + std::to_string(i) + "\": 1";
  wide += "}";
  for (const std::string& body :
       {std::string(),
        std::string("null"),
        std::string("[]"),
        std::string("7"),
        std::string("{"),
        std::string("\"{}\""),
        std::string("{}"),
        std::string("{\"messages\": [\xff]}"),
        nested(127),
        nested(100'000),
        wide,
        R"({"messages": [], "metadata": )" + wide + "}",
        std::string(R"({"messages": [], "metadata": 1e999})")}) {
    const bool is_list = body == nested(127);  // a list of lists: for the template's check
    EXPECT_EQ(Translated(body, kChatUrl).problem.has_value(), !is_list) << body.substr(0, 60);
  }
  // Each key with each kind of value: an answer, never an exception.
  const Json values = Json::parse(
      R"([null, true, false, 0, -1, 1e308, 18446744073709551615, "", "x", [], [[]], [null], {}, {"a": {}}])"
  );
  for (const char* key :
       {"model",
        "messages",
        "prompt",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "n",
        "best_of",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "echo",
        "tools",
        "tool_choice",
        "modalities",
        "logprobs",
        "guided_json",
        "guided_choice",
        "response_format",
        "structured_outputs",
        "chat_template_kwargs",
        "temperature",
        "unknown",
        "stream"}) {
    for (const Json& value : values) {
      for (const char* url : {kChatUrl, kTextUrl}) {
        Json body = {{"messages", Json::array()}};
        body[key] = value;
        (void)Translated(body.dump(), url);
        (void)CheckModelName(body, {"m"});
        const Json within = {
            {"messages", Json::array({{{"role", value}, {"content", value}, {"tool_calls", value}}})
            },
            {"response_format", {{"type", value}, {"json_schema", value}}},
            {"structured_outputs", {{"json", value}, {"choice", value}}}
        };
        (void)Translated(within.dump(), url);
      }
    }
  }
}

// A server may take what the native engine does not read: then only what all must know is.
TEST(RequestBodyTest, OfAWideBodyTheModelAndTheStreamAreKnown) {
  std::string wide = R"({"model": "a", "logit_bias": {"0": 1)";
  for (int i = 1; i < 200'000; ++i) wide += ", \"" + std::to_string(i) + "\": 1";
  wide += "}";
  {
    RowRequest request;
    EXPECT_FALSE(ReadRowRequest(wide + "}", "POST", kChatUrl, &request));
    EXPECT_FALSE(CheckModelName(request.body, {"a"}));
    EXPECT_EQ(CheckModelName(request.body, {"b"})->status, 404);
    RequestBody read;
    EXPECT_EQ(ReadRequestBody(request, &read)->param, "body");
  }
  for (const char* keys : {R"(, "stream": true})", R"(, "stream": {}})", R"(, "stream": [{}]})"}) {
    RowRequest request;
    EXPECT_EQ(ReadRowRequest(wide + keys, "POST", kChatUrl, &request)->param, "stream");
  }
  RowRequest request;
  EXPECT_FALSE(ReadRowRequest(wide + R"(, "model": {"x": 1}, "stream": false})", "", "", &request));
  EXPECT_EQ(CheckModelName(request.body, {"a"})->param, "model");
}

TEST(RequestBodyTest, OtherUrlsMethodsAndStreamsAreRefused) {
  RowRequest request;
  const auto problem = [&](std::string_view method, std::string_view url, std::string_view body) {
    return ReadRowRequest(body, method, url, &request);
  };
  EXPECT_FALSE(problem("", "", "{}"));
  EXPECT_EQ(request.endpoint, Endpoint::kChat);
  EXPECT_FALSE(problem("POST", kTextUrl, R"({"stream": false})"));
  EXPECT_EQ(request.endpoint, Endpoint::kCompletions);
  EXPECT_EQ(problem("GET", kChatUrl, "{}")->param, "method");
  for (const char* url : {"/v1/embeddings", "/chat/completions", "x", "/v1/chat/completions/"}) {
    EXPECT_EQ(problem("POST", url, "{}")->code, "invalid_url") << url;
  }
  EXPECT_EQ(problem("POST", kChatUrl, R"({"stream": true})")->param, "stream");
}

TEST(RequestBodyTest, AModelOfAnotherNameIsNotFound) {
  const std::vector<std::string> names{"a", "b"};
  for (const char* body : {"{}", R"({"model": null})", R"({"model": "a"})", R"({"model": "b"})"}) {
    EXPECT_FALSE(CheckModelName(Json::parse(body), names)) << body;
  }
  const auto other = CheckModelName(Json::parse(R"({"model": "c"})"), names);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->status, 404);
  const RowError error = ErrorOfRequest("step", *other);
  EXPECT_EQ(error.code, "model_not_found");
  EXPECT_EQ(
      error.answer,
      R"(404 {"message":"the model c is not served here: a, b is","type":"invalid_request_error",)"
      R"("param":"model","code":"model_not_found"})"
  );
  EXPECT_EQ(CheckModelName(Json::parse(R"({"model": 7})"), names)->status, 400);
}

}  // namespace
}  // namespace millstream
