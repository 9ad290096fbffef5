// SPDX-License-Identifier: Apache-2.0
#include "pipeline/messages.h"

#include "base/parse_json.h"
#include "fmt/format.h"
#include "text/template.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// Text of a message's content: a string, or a list of text parts. Anything else is refused by name.
Result<std::string> ContentText(const Json& content) {
  if (content.is_null()) return std::string();
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    return Status::Invalid("a message's content must be a string or a list of parts");
  }
  std::string text;
  for (const Json& part : content) {
    const std::string type = part.is_object() && part.contains("type") && part["type"].is_string()
                                 ? part["type"].get<std::string>()
                                 : "";
    if (type != "text") {
      return Status::Invalid(
          fmt::format("content part of type '{}' is not supported, only 'text' is", type)
      );
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      return Status::Invalid("a text part has no text");
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

}  // namespace

std::string RoleText(const std::string& marked) {
  std::string plain = Unmark(marked);
  for (const char* known : {"system", "user", "assistant", "tool", "developer"}) {
    if (plain == known) return plain;
  }
  return marked;
}

Result<Json> MarkedMessages(
    const Json& value, const std::string& special_tokens, bool parse_special
) {
  if (!value.is_array() || value.empty()) {
    return Status::Invalid("messages must be a non-empty list of messages");
  }
  const auto mark = [&](const std::string& text) {
    return parse_special ? text : MarkAll(text, special_tokens);
  };
  Json messages = Json::array();
  for (const Json& message : value) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      return Status::Invalid("every message needs a role, a string");
    }
    MS_ASSIGN_OR_RETURN(const std::string text, ContentText(Member(message, "content")));
    messages.push_back(
        {{"role", RoleText(mark(message["role"].get<std::string>()))}, {"content", mark(text)}}
    );
  }
  return messages;
}

}  // namespace millstream
