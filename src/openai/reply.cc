// SPDX-License-Identifier: Apache-2.0
#include "openai/reply.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/compact_json.h"
#include "base/parse_json.h"
#include "base/utf8.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::json;
using Kind = Verdict::Kind;

constexpr std::size_t kMessageBytesMax = 500;
constexpr int kAnswerDepthMax = kJsonDepthMax - 2;  // a batch's line has it within two objects
constexpr std::int64_t kRetryAfterSecondsMax = 24 * 3600;

Verdict Of(Kind kind, std::string message) {
  Verdict verdict;
  verdict.kind = kind;
  verdict.message = std::move(message);
  return verdict;
}

Verdict Failed(std::string_view code, std::string message) {
  Verdict verdict = Of(Kind::kFailed, message);
  verdict.completion.reason = FinishReason::kError;
  verdict.completion.error_code = code;
  verdict.completion.error_message = std::move(message);
  return verdict;
}

std::string Text(const Json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::int64_t Count(const Json& usage, const char* key) {
  const Json& count = Member(usage, key);
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  return count.is_number_integer() ? std::clamp<std::int64_t>(count.get<std::int64_t>(), 0, kMost)
                                   : 0;
}

std::string Clipped(std::string text) {
  if (text.size() <= kMessageBytesMax) return text;
  std::size_t end = kMessageBytesMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  text.resize(end);
  return text + "...";
}

// What an error's body says: OpenAI's form, vLLM's and SGLang's older flat one, or its text.
struct ErrorBody {
  std::string message, code, type;
};

ErrorBody ReadError(const std::string& body) {
  const Json json = ParseJson<Json>(body);
  const Json& error = Member(json, "error").is_object() ? Member(json, "error") : json;
  ErrorBody read{Text(error, "message"), Text(error, "code"), Text(error, "type")};
  if (read.message.empty()) read.message = Text(json, "error");
  if (read.message.empty()) read.message = Text(json, "detail");
  const bool has_text = body.find_first_not_of(" \t\r\n") != body.npos;
  if (read.message.empty() && has_text && IsValidUtf8(body)) read.message = body;
  read.message = Clipped(std::move(read.message));
  return read;
}

// The answer of a refusal, as Request::http_whole wants it: OpenAI's keys, with what is said
// elsewhere if they are not there.
std::string WholeError(const HttpReply& reply, const ErrorBody& error) {
  const Json json = ParseJson<Json>(reply.body);
  const Json& given = Member(json, "error").is_object() ? Member(json, "error") : json;
  nlohmann::ordered_json whole = {
      {"message",
       error.message.empty() ? fmt::format("the server answered {}", reply.status) : error.message}
  };
  for (const char* key : {"type", "param", "code"}) {
    const Json& value = Member(given, key);
    if (value.is_string()) {
      whole[key] = Clipped(value.get<std::string>());
    } else {
      whole[key] = value.is_number_integer() ? value : Json();
    }
  }
  if (!whole["type"].is_string()) whole["type"] = "invalid_request_error";
  return fmt::format("{} {}", reply.status, CompactJson(whole));
}

// Servers say in many ways that a prompt is too long.
bool IsTooLong(const ErrorBody& error) {
  if (error.code == "context_length_exceeded" || error.type == "exceed_context_size_error") {
    return true;
  }
  constexpr std::array<std::string_view, 5> kPhrases{
      "maximum context length",                     // vLLM, OpenAI
      "exceeds the available context size",         // llama-server
      "is longer than the model's context length",  // SGLang
      "longer than the maximum model length",       // vLLM
      "exceeds the maximum allowed length"          // SGLang
  };
  return std::any_of(kPhrases.begin(), kPhrases.end(), [&](std::string_view phrase) {
    return error.message.find(phrase) != error.message.npos;
  });
}

// Seconds or a date.
std::optional<std::chrono::milliseconds> RetryAfter(const HttpReply& reply, std::int64_t now) {
  const std::string& value = reply.Header("retry-after");
  if (value.empty()) return std::nullopt;
  double seconds = 0;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, seconds);
  if (error != std::errc() || stop != end) {
    const auto at = ParseHttpDate(value);
    if (!at) return std::nullopt;
    seconds = static_cast<double>(*at - now);
  }
  if (!std::isfinite(seconds)) return std::nullopt;
  seconds = std::clamp(seconds, 0.0, static_cast<double>(kRetryAfterSecondsMax));
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

std::string InWords(const HttpReply& reply, const ErrorBody& error) {
  return fmt::format(
      "the server answered {}{}{}", reply.status, error.message.empty() ? "" : ": ", error.message
  );
}

Verdict JudgeStatus(const HttpReply& reply, std::int64_t now) {
  const ErrorBody error = ReadError(reply.body);
  const std::string message = InWords(reply, error);
  const auto again = [&](Kind kind) {
    Verdict verdict = Of(kind, message);
    verdict.retry_after = RetryAfter(reply, now);
    return verdict;
  };
  switch (reply.status) {
    case 400:
    case 413:
    case 422:
    case 501:
      if (IsTooLong(error)) return Failed("prompt_too_long", message);
      if (error.code == "content_filter") return Failed("content_filter", message);
      return Failed("bad_request", message);
    case 401:
      return Of(Kind::kStop, message + ": check the key that `api_key` names");
    case 402:
      return Of(Kind::kStop, message + ": the account has no money left");
    case 403:
      return Of(Kind::kStop, message + ": the key may not do this");
    case 404:
    case 405:
      return Of(
          Kind::kStop,
          message +
              ": check `model`, and that `base_url` ends as the server wants it, with /v1 mostly"
      );
    case 429:
      if (error.code == "insufficient_quota" || error.type == "insufficient_quota") {
        return Of(Kind::kStop, message + ": the account's quota is used up");
      }
      return again(Kind::kBusy);
    case 503:
      return again(Kind::kUnavailable);
    case 409:
    case 423:
    case 425:
      return again(Kind::kAgain);
    default:
      break;
  }
  if (reply.status == 408 || reply.status >= 500) return again(Kind::kAgain);
  if (reply.status >= 300 && reply.status < 400) {
    return Of(
        Kind::kStop, message + ": redirects are not followed; give the address that it leads to"
    );
  }
  return Failed("bad_request", message);
}

// What else there is to say of a reply that is no answer to a request of http_whole.
void TakeWhole(const HttpReply& reply, Verdict& verdict) {
  const ErrorBody error = ReadError(reply.body);
  if (reply.status == 403 || reply.status == 404 || reply.status == 405) {
    verdict.kind = Kind::kRefused;
    verdict.completion = Failed("bad_request", InWords(reply, error)).completion;
  }
  const bool is_failure = verdict.kind == Kind::kFailed || verdict.kind == Kind::kRefused;
  if (is_failure) verdict.completion.text = WholeError(reply, error);
}

// An answer that is kept as it came.
Verdict JudgeWhole(const HttpReply& reply, const Json& choices, Completion completion) {
  for (const Json& choice : choices) {
    const std::string reason = Text(choice, "finish_reason");
    if (reason == "abort" || reason == "error") {
      return Of(Kind::kAgain, fmt::format("the server ended the answer with '{}'", reason));
    }
    const Json& message = Member(choice, "message");
    bool has_content = Member(choice, "text").is_string();
    for (const char* key : {"content", "refusal", "reasoning", "reasoning_content"}) {
      has_content = has_content || Member(message, key).is_string();
    }
    for (const char* key : {"tool_calls", "function_call", "audio"}) {
      const Json& part = Member(message, key);
      has_content = has_content || (part.is_structured() && !part.empty());
    }
    if (!has_content && reason != "content_filter") {
      return Failed("empty_choice", "the server's answer has no text");
    }
    if (reason == "length") completion.reason = FinishReason::kLength;
  }
  Verdict verdict = Of(Kind::kAnswer, {});
  verdict.completion = std::move(completion);
  verdict.completion.text = reply.body;
  return verdict;
}

// A choice of either endpoint.
Verdict JudgeChoice(const Json& choice, Completion completion) {
  const std::string reason = Text(choice, "finish_reason");
  if (reason == "abort" || reason == "error") {
    return Of(Kind::kAgain, fmt::format("the server ended the answer with '{}'", reason));
  }
  if (reason == "content_filter") {
    return Failed("content_filter", "the server's content filter ended the answer");
  }
  const Json& message = Member(choice, "message");
  if (const std::string refusal = Text(message, "refusal"); !refusal.empty()) {
    return Failed("content_filter", "the model refused: " + Clipped(refusal));
  }
  const Json& content = message.is_object() ? Member(message, "content") : Member(choice, "text");
  std::string reasoning = Text(message, "reasoning_content");
  if (reasoning.empty()) reasoning = Text(message, "reasoning");
  if (!content.is_string() && reasoning.empty()) {
    return Failed("empty_choice", "the server's answer has no text");
  }
  Verdict verdict = Of(Kind::kAnswer, {});
  verdict.completion = std::move(completion);
  // As the model wrote it, before the server took it apart.
  if (!reasoning.empty()) verdict.completion.text = "<think>" + reasoning + "</think>";
  if (content.is_string()) verdict.completion.text += content.get<std::string>();
  verdict.completion.reason = reason == "length" ? FinishReason::kLength : FinishReason::kStop;
  return verdict;
}

Verdict JudgeAnswer(const HttpReply& reply, bool whole) {
  if (NestsDeeper(reply.body, kAnswerDepthMax)) {
    return Failed("empty_choice", "the server's answer nests deeper than a row can");
  }
  const Json json = ParseJson<Json>(reply.body);
  if (!json.is_object()) return Of(Kind::kAgain, "the server's answer is no JSON");
  if (Member(json, "error").is_object()) {
    return Of(Kind::kAgain, "the server answered 200: " + ReadError(reply.body).message);
  }
  const Json& choices = Member(json, "choices");
  if (!choices.is_array()) return Of(Kind::kAgain, "the server's answer has no `choices`");
  if (choices.empty()) return Failed("empty_choice", "the server's answer has no choice");
  Completion completion;
  const Json& usage = Member(json, "usage");
  completion.prompt_tokens = Count(usage, "prompt_tokens");
  completion.completion_tokens = Count(usage, "completion_tokens");
  if (whole) return JudgeWhole(reply, choices, std::move(completion));
  return JudgeChoice(choices.front(), std::move(completion));
}

}  // namespace

Verdict JudgeReply(const HttpReply& reply, std::int64_t now_unix_seconds, bool whole) {
  switch (reply.end) {
    case HttpReply::End::kDone:
      break;
    case HttpReply::End::kNotSent: {
      Verdict gone = Of(Kind::kGone, reply.error);
      gone.is_refused = reply.is_refused;
      return gone;
    }
    case HttpReply::End::kBroken:
      return Of(Kind::kLost, "the connection broke: " + reply.error);
    case HttpReply::End::kTimeout:
      return Of(Kind::kTimeout, "no answer within `timeout`");
    case HttpReply::End::kTooLarge:
      return Failed("bad_request", "the server's answer is larger than an answer can be");
    case HttpReply::End::kWrong:
      return Of(Kind::kStop, "cannot ask the server: " + reply.error);
  }
  const bool is_answer = reply.status == 200;
  Verdict verdict = is_answer ? JudgeAnswer(reply, whole) : JudgeStatus(reply, now_unix_seconds);
  if (whole && !is_answer) TakeWhole(reply, verdict);
  verdict.rates = ReadRateHeaders(reply);
  return verdict;
}

}  // namespace millstream
