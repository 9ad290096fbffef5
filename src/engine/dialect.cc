// SPDX-License-Identifier: Apache-2.0
#include "engine/dialect.h"

#include <algorithm>
#include <array>

#include "engine/dialect_constraint.h"
#include "fmt/format.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 4> kNames{"openai", "vllm", "sglang", "llama-server"};
constexpr std::string_view kMessages = "messages";
constexpr std::size_t kOpenAiStopsMax = 4;

// A key of a body in the order of kNames: what each server calls it. Empty: it lacks it.
struct Key {
  std::string_view ours;
  std::array<std::string_view, 4> theirs;
};

constexpr Key Same(std::string_view name) {
  return {name, {name, name, name, name}};
}

constexpr std::array kKeys{
    Same("model"),
    Same(kMessages),
    Same("prompt"),
    Same("temperature"),
    Same("top_p"),
    Same("presence_penalty"),
    Same("frequency_penalty"),
    Same("seed"),
    Same("stop"),
    Key{"max_tokens", {"max_completion_tokens", "max_tokens", "max_tokens", "max_tokens"}},
    Key{"top_k", {"", "top_k", "top_k", "top_k"}},
    Key{"min_p", {"", "min_p", "min_p", "min_p"}},
    Key{"repetition_penalty", {"", "repetition_penalty", "repetition_penalty", "repeat_penalty"}},
    Key{"min_tokens", {"", "min_tokens", "min_tokens", ""}},
    Key{"stop_token_ids", {"", "stop_token_ids", "stop_token_ids", ""}},
    Key{"include_stop_str_in_output", {"", "include_stop_str_in_output", "no_stop_trim", ""}},
    Key{"ignore_eos", {"", "ignore_eos", "ignore_eos", "ignore_eos"}},
    Key{"chat_template_kwargs",
        {"", "chat_template_kwargs", "chat_template_kwargs", "chat_template_kwargs"}},
    Key{"continue_final_message", {"", "continue_final_message", "continue_final_message", ""}},
    Key{"add_special_tokens", {"", "add_special_tokens", "", ""}},
};

const Key* Find(std::string_view name) {
  const auto found =
      std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& key) { return key.ours == name; });
  return found == kKeys.end() ? nullptr : &*found;
}

}  // namespace

std::string_view DialectName(Dialect dialect) {
  return kNames[static_cast<std::size_t>(dialect)];
}

std::optional<Dialect> DialectFromName(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<Dialect>(found - kNames.begin());
}

std::string_view EndpointPath(Endpoint endpoint) {
  return endpoint == Endpoint::kChat ? "/chat/completions" : "/completions";
}

bool CountsTokens(Dialect dialect, Endpoint endpoint) {
  return dialect == Dialect::kVllm || dialect == Dialect::kLlamaServer ||
         (dialect == Dialect::kSglang && endpoint == Endpoint::kCompletions);
}

Status TranslateBody(Dialect dialect, Endpoint endpoint, Json& body) {
  Json translated = Json::object();
  for (auto& [name, value] : body.items()) {
    if (name == "structured_outputs") {
      MS_RETURN_NOT_OK(AddConstraint(dialect, endpoint, value, translated));
      continue;
    }
    // llama-server continues an assistant's last message unasked.
    if (name == "continue_final_message" && dialect == Dialect::kLlamaServer) continue;
    if (name == "continue_final_message" && dialect == Dialect::kVllm) {
      translated["add_generation_prompt"] = false;
    }
    const Key* const key = Find(name);
    std::string_view theirs =
        key == nullptr ? std::string_view() : key->theirs[static_cast<std::size_t>(dialect)];
    if (theirs.empty()) {
      return Status::Invalid(fmt::format(
          "{}: a server of dialect {} does not know it, and would answer as if it were not there; "
          "leave it out, or name the server's dialect under `models`",
          name,
          DialectName(dialect)
      ));
    }
    // OpenAI's newer name is that of the chat endpoint alone.
    if (name == "max_tokens" && endpoint == Endpoint::kCompletions) theirs = name;
    if (name == "stop" && dialect == Dialect::kOpenAi && value.size() > kOpenAiStopsMax) {
      return Status::Invalid(fmt::format(
          "stop: a server of dialect openai takes at most {} texts, not {}",
          kOpenAiStopsMax,
          value.size()
      ));
    }
    translated[std::string(theirs)] = std::move(value);
  }
  body = std::move(translated);
  return Status::OK();
}

}  // namespace millstream
