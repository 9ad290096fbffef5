// SPDX-License-Identifier: Apache-2.0
// How many tokens a prompt has, for a model that runs elsewhere.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "engine/language_model.h"
#include "nlohmann/json.hpp"

namespace millstream {

/// The tokens of the prompt in a request's body: of its `messages`, with the model's chat template,
/// `chat_template_kwargs` and `continue_final_message`, or of its `prompt`; `add_special_tokens`
/// may say whether any are added. Nothing if they cannot be told, since the body is wrong in some
/// way: whoever serves it will say how. Thread-safe.
using TokenCounter =
    std::function<Result<std::optional<std::int64_t>>(const nlohmann::ordered_json& body)>;

/// Counts with a tokenizer and chat template of this machine, as vLLM does: special tokens in the
/// text are special. `now_unix_seconds` is what a template may print.
TokenCounter CountHere(std::shared_ptr<const LanguageModel> model, std::int64_t now_unix_seconds);

}  // namespace millstream
