// SPDX-License-Identifier: Apache-2.0
#include "pipeline/completion_object.h"

#include "base/compact_json.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "pipeline/reasoning.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

Json Message(const CompletionFrame& frame, const Completion& sample) {
  Json message = {{"role", "assistant"}, {"content", sample.text}, {"refusal", nullptr}};
  if (frame.split) {
    const SplitText parts = SplitReasoning(frame.prompt, sample.text);
    message["content"] = parts.answer;
    message["reasoning_content"] = parts.reasoning;
  }
  return message;
}

// What OpenAI's clients know: "length" tells them that an answer is not whole.
std::string_view FinishReasonOf(const Completion& sample) {
  const bool is_runaway = sample.reason == FinishReason::kRunaway;
  return FinishReasonName(is_runaway ? FinishReason::kLength : sample.reason);
}

}  // namespace

std::string CompletionObject(const CompletionFrame& frame, const std::vector<Completion>& samples) {
  const bool is_chat = frame.endpoint == Endpoint::kChat;
  Json choices = Json::array();
  std::int64_t completion_tokens = 0;
  for (const Completion& sample : samples) {
    Json choice = {{"index", choices.size()}};
    if (is_chat) {
      choice["message"] = Message(frame, sample);
    } else {
      choice["text"] = frame.echo ? frame.prompt + sample.text : sample.text;
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = FinishReasonOf(sample);
    choices.push_back(std::move(choice));
    completion_tokens += sample.completion_tokens;
  }
  const std::int64_t prompt_tokens = samples.front().prompt_tokens;
  const Json object = {
      {"id",
       fmt::format("{}-{:016x}{:016x}", is_chat ? "chatcmpl" : "cmpl", frame.id.high, frame.id.low)
      },
      {"object", is_chat ? "chat.completion" : "text_completion"},
      {"created", frame.created_unix_seconds},
      {"model", frame.model},
      {"choices", std::move(choices)},
      {"usage",
       {{"prompt_tokens", prompt_tokens},
        {"completion_tokens", completion_tokens},
        {"total_tokens", prompt_tokens + completion_tokens}}}
  };
  return CompactJson(object);
}

}  // namespace millstream
