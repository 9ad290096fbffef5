// SPDX-License-Identifier: Apache-2.0
#include "pipeline/completion_object.h"

#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

Completion Sample(std::string text, FinishReason reason) {
  Completion sample;
  sample.text = std::move(text);
  sample.reason = reason;
  sample.prompt_tokens = 5;
  sample.completion_tokens = 3;
  return sample;
}

CompletionFrame Frame(Endpoint endpoint) {
  CompletionFrame frame;
  frame.endpoint = endpoint;
  frame.id = {1, 0xab};
  frame.created_unix_seconds = 1700000000;
  frame.model = "m";
  frame.prompt = "Say ";
  return frame;
}

TEST(CompletionObjectTest, AChatHasAMessagePerSampleAndCountsThePromptOnce) {
  EXPECT_EQ(
      Json::parse(CompletionObject(
          Frame(Endpoint::kChat),
          {Sample("a\"", FinishReason::kStop), Sample("b", FinishReason::kLength)}
      )),
      Json::parse(R"({"id": "chatcmpl-000000000000000100000000000000ab",
        "object": "chat.completion", "created": 1700000000, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a\"", "refusal": null},
         "logprobs": null, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "b", "refusal": null},
         "logprobs": null, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}})")
  );
}

TEST(CompletionObjectTest, ARunawayIsAnAnswerThatWasCut) {
  const Json object = Json::parse(
      CompletionObject(Frame(Endpoint::kChat), {Sample("a a a", FinishReason::kRunaway)})
  );
  EXPECT_EQ(object["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(object["choices"][0]["message"]["content"], "a a a");
}

TEST(CompletionObjectTest, ATextCompletionHasTextsAfterThePromptIfThatIsEchoed) {
  CompletionFrame frame = Frame(Endpoint::kCompletions);
  const std::vector<Completion> samples{Sample("x", FinishReason::kStop)};
  const Json plain = Json::parse(CompletionObject(frame, samples));
  EXPECT_EQ(plain["object"], "text_completion");
  EXPECT_EQ(plain["id"], "cmpl-000000000000000100000000000000ab");
  EXPECT_EQ(
      plain["choices"],
      Json::parse(R"([{"index": 0, "text": "x", "logprobs": null, "finish_reason": "stop"}])")
  );
  frame.echo = true;
  EXPECT_EQ(Json::parse(CompletionObject(frame, samples))["choices"][0]["text"], "Say x");
}

TEST(CompletionObjectTest, ReasoningStandsApartIfAskedFor) {
  CompletionFrame frame = Frame(Endpoint::kChat);
  frame.split = true;
  const Json object =
      Json::parse(CompletionObject(frame, {Sample("<think>hm</think>yes", FinishReason::kStop)}));
  EXPECT_EQ(object["choices"][0]["message"]["content"], "yes");
  EXPECT_EQ(object["choices"][0]["message"]["reasoning_content"], "hm");
}

}  // namespace
}  // namespace millstream
