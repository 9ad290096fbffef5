// SPDX-License-Identifier: Apache-2.0
// Request bodies of OpenAI's API that rows hold: what they ask, checked. Trusts nothing in them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/row.h"
#include "engine/dialect.h"
#include "nlohmann/json.hpp"
#include "pipeline/sampling_settings.h"
#include "text/grammar.h"

namespace millstream {

/// Why a request is refused: what an OpenAI server's error object would say.
struct RequestProblem {
  int status = 400;
  std::string code;     // OpenAI's word, or one in its manner
  std::string param;    // the key that is wrong; empty: none
  std::string message;  // with what to do
};
/// The same as a row's error.
RowError ErrorOfRequest(const std::string& step, const RequestProblem& problem);

/// A row's request, as far as every engine must know it.
struct RowRequest {
  Endpoint endpoint = Endpoint::kChat;
  nlohmann::ordered_json body = nlohmann::ordered_json::object();
  /// An object in it has more keys than an engine here reads: `body` has `model` and `stream`
  /// alone.
  bool is_wide = false;
};
/// Where a request goes, and what it holds. An empty method is POST, an empty url that of chats.
std::optional<RequestProblem> ReadRowRequest(
    std::string_view body, std::string_view method, std::string_view url, RowRequest* request
);
/// Whether the request may be for a model of these names.
std::optional<RequestProblem> CheckModelName(
    const nlohmann::ordered_json& body, const std::vector<std::string>& names
);

/// What a body asks of the native engine.
struct RequestBody {
  nlohmann::ordered_json messages;  // of a chat, as they came
  std::string prompt;               // of a text completion
  RowSettings settings;             // set before: what holds where the body says nothing
  bool has_max_tokens = false;
  std::int64_t n = 1;
  std::optional<std::pair<Grammar::Kind, std::string>> constraint;  // with its source
  nlohmann::ordered_json chat_template_kwargs = nlohmann::ordered_json::object();
  bool add_generation_prompt = true, continue_final_message = false;
  std::optional<bool> add_special_tokens;
  bool echo = false;                 // the prompt before the answer
  std::vector<std::string> ignored;  // keys that change no answer, and unknown ones
};
/// Reads a request for the native engine into `out`. A key that it cannot honour and that would
/// change the answer is a problem; docs/openai-batch.md lists them.
std::optional<RequestProblem> ReadRequestBody(const RowRequest& request, RequestBody* out);

}  // namespace millstream
