// SPDX-License-Identifier: Apache-2.0
#include "openai/reply.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <utility>

#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using Kind = Verdict::Kind;

HttpReply Replied(long status, std::string body) {
  HttpReply reply;
  reply.status = status;
  reply.body = std::move(body);
  return reply;
}

Verdict Judged(long status, std::string body) {
  return JudgeReply(Replied(status, std::move(body)), 0);
}

constexpr char kAnswer[] =
    R"({"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}})";

TEST(ReplyTest, AnAnswerHasItsTextReasonAndTokens) {
  const Verdict verdict = Judged(200, kAnswer);
  ASSERT_EQ(verdict.kind, Kind::kAnswer);
  EXPECT_EQ(verdict.completion.text, "hi");
  EXPECT_EQ(verdict.completion.reason, FinishReason::kStop);
  EXPECT_EQ(verdict.completion.prompt_tokens, 3);
  EXPECT_EQ(verdict.completion.completion_tokens, 2);
  EXPECT_EQ(
      Judged(200, R"({"choices":[{"text":"x","finish_reason":"length"}]})").completion.reason,
      FinishReason::kLength
  );
}

Verdict JudgedWhole(long status, std::string body) {
  return JudgeReply(Replied(status, std::move(body)), 0, /*whole=*/true);
}

TEST(ReplyTest, AWholeAnswerIsItsBodyAsItCame) {
  const std::string body =
      R"({"x": 12345678901234567890123, "choices": [{"message": {"content": null, "tool_calls": [{}]}}, )"
      R"({"message": {"content": "hi"}, "finish_reason": "length"}], "usage": {"completion_tokens": 2}})";
  const Verdict verdict = JudgedWhole(200, body);
  ASSERT_EQ(verdict.kind, Kind::kAnswer);
  EXPECT_EQ(verdict.completion.text, body);
  EXPECT_EQ(verdict.completion.completion_tokens, 2);
  EXPECT_EQ(verdict.completion.reason, FinishReason::kLength);
  for (const char* choice :
       {R"({"text": ""})",
        R"({"message": {"content": null, "refusal": "no"}})",
        R"({"message": {"content": null, "reasoning": "hm"}})",
        R"({"message": {"content": null}, "finish_reason": "content_filter"})"}) {
    EXPECT_EQ(JudgedWhole(200, R"({"choices":[)" + std::string(choice) + "]}").kind, Kind::kAnswer)
        << choice;
  }
}

TEST(ReplyTest, AWholeAnswerIsJudgedInEachChoice) {
  const auto with_second = [](const std::string& choice) {
    return JudgedWhole(200, R"({"choices":[{"text": "a"},)" + choice + "]}");
  };
  EXPECT_EQ(with_second(R"({"text": "", "finish_reason": "abort"})").kind, Kind::kAgain);
  for (const char* choice :
       {R"({"message": {"content": null}})",
        R"({"message": {"content": null, "tool_calls": []}})",
        "{}",
        "7"}) {
    EXPECT_EQ(with_second(choice).completion.error_code, "empty_choice") << choice;
  }
  EXPECT_EQ(JudgedWhole(200, R"({"choices":[]})").completion.error_code, "empty_choice");
  EXPECT_EQ(JudgedWhole(200, "{}").kind, Kind::kAgain);
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  EXPECT_EQ(JudgedWhole(200, R"({"choices":[{"text":"a"}],"x":)" + deep + "}").kind, Kind::kFailed);
}

TEST(ReplyTest, AWholeRefusalHasItsStatusAndErrorObject) {
  EXPECT_EQ(
      JudgedWhole(
          422, R"({"error": {"message": "no", "type": "t", "param": "n", "code": "c", "more": 1}})"
      )
          .completion.text,
      R"(422 {"message":"no","type":"t","param":"n","code":"c"})"
  );
  // vLLM's older form, and one that is none.
  EXPECT_EQ(
      JudgedWhole(400, R"({"object": "error", "message": "no", "type": ["x"], "code": 400})")
          .completion.text,
      R"(400 {"message":"no","type":"invalid_request_error","param":null,"code":400})"
  );
  EXPECT_EQ(
      JudgedWhole(413, "too large").completion.text,
      R"(413 {"message":"too large","type":"invalid_request_error","param":null,"code":null})"
  );
  EXPECT_EQ(Judged(422, R"({"error":{"message":"no"}})").completion.text, "");
}

// FastAPI's, say, which is of vLLM and SGLang before their own code sees a request.
TEST(ReplyTest, ARefusalInAnyFormKeepsItsWords) {
  const auto told = [](const std::string& body) {
    const nlohmann::json error =
        nlohmann::json::parse(JudgedWhole(422, body).completion.text.substr(4));
    EXPECT_EQ(error["type"], "invalid_request_error") << body;
    return error["message"].get<std::string>();
  };
  const std::string detail =
      R"({"detail":[{"type":"missing","loc":["body","messages"],"msg":"Field required"}]})";
  for (const std::string& body :
       {detail,
        std::string("[1]"),
        std::string("null"),
        std::string(R"({"error":null})"),
        std::string(R"({"error":{"message":7}})"),
        std::string(R"({"error":{"message":""}})")}) {
    EXPECT_EQ(told(body), body);
    EXPECT_EQ(Judged(422, body).completion.error_message, "the server answered 422: " + body);
  }
  EXPECT_EQ(told(R"({"error":"text"})"), "text");
  EXPECT_EQ(told(R"({"detail":"text"})"), "text");
  EXPECT_EQ(told(""), "the server answered 422");
  EXPECT_EQ(told(" \n"), "the server answered 422");
  EXPECT_EQ(told("\xff\xfe"), "the server answered 422");
  EXPECT_EQ(told("{\"message\": \"\xff\"}"), "the server answered 422");
  EXPECT_LT(told("[" + std::string(100'000, ' ') + "]").size(), 1000);
  EXPECT_EQ(Judged(413, "").completion.error_message, "the server answered 413");
  EXPECT_EQ(
      Judged(400, R"({"detail":[{"msg":"this exceeds the maximum context length"}]})")
          .completion.error_code,
      "prompt_too_long"
  );
}

TEST(ReplyTest, WhatMayBeAWholeRequestsOwnFaultIsTheServersToShow) {
  for (const long status : {403, 404, 405}) {
    const Verdict verdict = JudgedWhole(status, R"({"error":{"message":"no"}})");
    EXPECT_EQ(verdict.kind, Kind::kRefused) << status;
    EXPECT_EQ(verdict.completion.error_code, "bad_request");
    EXPECT_EQ(
        verdict.completion.text,
        std::to_string(status) +
            R"( {"message":"no","type":"invalid_request_error","param":null,"code":null})"
    );
  }
  EXPECT_EQ(JudgedWhole(401, "{}").kind, Kind::kStop);
  EXPECT_EQ(JudgedWhole(402, "{}").kind, Kind::kStop);
}

TEST(ReplyTest, EachServersWordsForAPromptThatIsTooLongAreKnown) {
  for (const char* body :
       {R"({"error":{"message":"no","code":"context_length_exceeded"}})",
        R"({"object":"error","message":"This model's maximum context length is 8 tokens.","code":400})",
        R"({"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}})",
        R"({"message":"The input (9 tokens) is longer than the model's context length (8 tokens)."})"
       }) {
    const Verdict verdict = Judged(400, body);
    EXPECT_EQ(verdict.kind, Kind::kFailed);
    EXPECT_EQ(verdict.completion.error_code, "prompt_too_long") << body;
  }
  EXPECT_EQ(Judged(400, R"({"error":{"message":"no"}})").completion.error_code, "bad_request");
}

TEST(ReplyTest, EachStatusIsTheRowsTheServersOrTheJobs) {
  const std::map<long, Kind> kinds{
      {400, Kind::kFailed},
      {401, Kind::kStop},
      {402, Kind::kStop},
      {403, Kind::kStop},
      {404, Kind::kStop},
      {405, Kind::kStop},
      {408, Kind::kAgain},
      {413, Kind::kFailed},
      {422, Kind::kFailed},
      {429, Kind::kBusy},
      {500, Kind::kAgain},
      {501, Kind::kFailed},
      {502, Kind::kAgain},
      {503, Kind::kUnavailable},
      {504, Kind::kAgain},
      {301, Kind::kStop},
  };
  for (const auto& [status, kind] : kinds) EXPECT_EQ(Judged(status, "{}").kind, kind) << status;
  EXPECT_EQ(Judged(429, R"({"error":{"code":"insufficient_quota"}})").kind, Kind::kStop);
}

TEST(ReplyTest, RetryAfterIsSecondsOrADate) {
  const auto after = [](const std::string& value) {
    HttpReply reply = Replied(429, "{}");
    reply.headers["retry-after"] = value;
    return JudgeReply(reply, 1'700'000'000).retry_after;
  };
  EXPECT_EQ(after("7"), milliseconds(7000));
  EXPECT_EQ(after("0.25"), milliseconds(250));
  EXPECT_EQ(after("Tue, 14 Nov 2023 22:13:30 GMT"), milliseconds(10'000));  // 1,700,000,010
  EXPECT_EQ(after("Tue, 14 Nov 2023 22:13:10 GMT"), milliseconds(0));
  EXPECT_EQ(after("-5"), milliseconds(0));
  EXPECT_EQ(after("1e300"), milliseconds(24 * 3600 * 1000));
  EXPECT_EQ(after("nan"), std::nullopt);
  EXPECT_EQ(after("soon"), std::nullopt);
}

// A server may send anything at all.
TEST(ReplyTest, DamagedAnswersAreAskedForAgainOrJudgedButNeverCrash) {
  std::mt19937_64 random(1);
  const std::string whole = kAnswer;
  int answers = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string body = whole;
    for (std::uint64_t n = random() % 3; n > 0; --n) {
      body[random() % body.size()] = static_cast<char>(random());
    }
    body.resize(body.size() - random() % 2 * (random() % body.size()));
    for (const long status : {200, 400, 500}) {
      answers += Judged(status, body).kind == Kind::kAnswer ? 1 : 0;
    }
  }
  EXPECT_GT(answers, 0);
  for (const char* body :
       {"",
        "null",
        "[]",
        "{}",
        "7",
        R"({"choices":7})",
        R"({"choices":[7]})",
        R"({"choices":[{"message":7}]})",
        R"({"choices":[{"message":{"content":[1]}}]})",
        R"({"error":"text"})",
        R"({"choices":[],"usage":{"prompt_tokens":-1}})"}) {
    EXPECT_NE(Judged(200, body).kind, Kind::kAnswer) << body;
  }
}

}  // namespace
}  // namespace millstream
