// SPDX-License-Identifier: Apache-2.0
#include "engine/dialect_constraint.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/check.h"
#include "fmt/format.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

Status Lacks(Dialect dialect, std::string_view kind, std::string_view advice) {
  return Status::Invalid(fmt::format(
      "structured_outputs.{}: a server of dialect {} does not take it; {}",
      kind,
      DialectName(dialect),
      advice
  ));
}

// What OpenAI asks of a schema that it is to follow strictly: in all of it, each object is closed
// and has all its properties.
bool IsStrict(const Json& schema) {
  if (schema.is_array()) return std::all_of(schema.begin(), schema.end(), IsStrict);
  if (!schema.is_object()) return true;
  const bool is_object = schema.contains("properties") || schema.value("type", Json()) == "object";
  if (is_object) {
    if (schema.value("additionalProperties", Json(true)) != false) return false;
    const Json required = schema.value("required", Json::array());
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, unused] : properties.items()) {
      if (std::find(required.begin(), required.end(), name) == required.end()) return false;
    }
  }
  return std::all_of(schema.begin(), schema.end(), IsStrict);
}

Json ResponseFormat(const Json& schema) {
  Json format = {{"name", "answer"}, {"schema", schema}};
  return {{"type", "json_schema"}, {"json_schema", std::move(format)}};
}

// A regular expression of literals.
std::string RegexOf(const Json& choices) {
  std::string regex;
  for (const Json& choice : choices) {
    regex += regex.empty() ? "(" : "|";
    for (const char c : choice.get_ref<const std::string&>()) {
      if (std::string_view("\\.+*?()|[]{}^$").find(c) != std::string_view::npos) regex += '\\';
      regex += c;
    }
  }
  return regex + ")";
}

// A grammar of literals in GBNF, llama.cpp's notation.
std::string GbnfOf(const Json& choices) {
  std::string grammar = "root ::= ";
  for (const Json& choice : choices) {
    grammar += grammar.ends_with('"') ? " | \"" : "\"";
    for (const char c : choice.get_ref<const std::string&>()) {
      if (const auto code = static_cast<unsigned char>(c); code < ' ') {
        grammar += fmt::format("\\x{:02x}", code);
      } else {
        if (c == '"' || c == '\\') grammar += '\\';
        grammar += c;
      }
    }
    grammar += '"';
  }
  return grammar;
}

}  // namespace

Status AddConstraint(Dialect dialect, Endpoint endpoint, const Json& constraint, Json& body) {
  MS_CHECK(constraint.is_object() && constraint.size() == 1);
  const std::string& kind = constraint.begin().key();
  const Json& value = *constraint.begin();
  switch (dialect) {
    case Dialect::kVllm:
      body["structured_outputs"] = constraint;
      return Status::OK();
    case Dialect::kSglang:
      if (kind == "json") {
        body["response_format"] = ResponseFormat(value);
      } else if (kind == "grammar") {
        return Lacks(dialect, kind, "its grammars are of another notation: use json or regex");
      } else {
        body["regex"] = kind == "choice" ? RegexOf(value) : value.get<std::string>();
      }
      return Status::OK();
    case Dialect::kLlamaServer:
      if (kind == "json") {
        body["json_schema"] = value;
      } else if (kind == "choice") {
        body["grammar"] = GbnfOf(value);
      } else {
        return Lacks(dialect, kind, "use json or choice");
      }
      return Status::OK();
    case Dialect::kOpenAi:
      break;
  }
  if (endpoint == Endpoint::kCompletions) {
    return Lacks(
        dialect, kind, "of `raw_prompt` it constrains nothing: use `prompt` or `messages`"
    );
  }
  if (kind != "json") return Lacks(dialect, kind, "use json, with an enum for a choice");
  body["response_format"] = ResponseFormat(value);
  body["response_format"]["json_schema"]["strict"] = IsStrict(value);
  return Status::OK();
}

}  // namespace millstream
