// SPDX-License-Identifier: Apache-2.0
// What each kind of OpenAI-compatible server calls the settings of a request.

#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "nlohmann/json.hpp"

namespace millstream {

enum class Dialect { kOpenAi, kVllm, kSglang, kLlamaServer };

std::string_view DialectName(Dialect dialect);  // as the job file writes it
std::optional<Dialect> DialectFromName(std::string_view name);

/// The two ways to ask.
enum class Endpoint { kChat, kCompletions };
std::string_view EndpointPath(Endpoint endpoint);  // below the base URL: "/chat/completions"

/// Whether servers of the dialect say how many tokens such a prompt has.
bool CountsTokens(Dialect dialect, Endpoint endpoint);

/// Renames the keys of a request's body, which has the job file's names (those of vLLM), to what a
/// server of this dialect takes. Invalid, naming the key and what can be done, if it has one that
/// the server lacks: it would drop it silently.
Status TranslateBody(Dialect dialect, Endpoint endpoint, nlohmann::ordered_json& body);

}  // namespace millstream
