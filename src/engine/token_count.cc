// SPDX-License-Identifier: Apache-2.0
#include "engine/token_count.h"

#include <string>
#include <utility>

#include "base/compact_json.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

TokenCounter CountHere(std::shared_ptr<const LanguageModel> model, std::int64_t now_unix_seconds) {
  return [model = std::move(model),
          now_unix_seconds](const Json& body) -> Result<std::optional<std::int64_t>> {
    const auto prompt = body.find("prompt");
    std::string text;
    if (prompt != body.end()) {
      text = prompt->get<std::string>();
    } else {
      if (!model->chat_template) return std::nullopt;
      ChatOptions options;
      options.continue_final_message = body.contains("continue_final_message");
      options.add_generation_prompt = !options.continue_final_message;
      options.kwargs_json = CompactJson(body.value("chat_template_kwargs", Json::object()));
      options.now_unix_seconds = now_unix_seconds;
      auto rendered = model->chat_template->Render(CompactJson(body.at("messages")), options);
      if (!rendered.ok()) return std::nullopt;
      text = *std::move(rendered);
    }
    // A chat template writes its own BOS; a raw prompt gets the tokenizer's.
    auto tokens =
        model->tokenizer->Encode(text, body.value("add_special_tokens", prompt != body.end()));
    if (!tokens.ok()) return std::nullopt;
    return static_cast<std::int64_t>(tokens->size());
  };
}

}  // namespace millstream
