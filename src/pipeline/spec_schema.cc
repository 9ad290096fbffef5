// SPDX-License-Identifier: Apache-2.0
// The table of keys as a JSON Schema (draft 2020-12).
#include <algorithm>
#include <string>

#include "fmt/format.h"
#include "pipeline/parse_spec.h"
#include "pipeline/spec_keys.h"
#include "pipeline/spec_values.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using enum ScalarType;

std::string DefinitionOf(const SpecSection& section) {
  std::string name;
  for (const char c : section.name) {
    if (c == '.') name += '_';
    if (c != '.' && c != '[' && c != ']') name += c;
  }
  return name;
}

Json NumberSchema(std::string_view type, const NumberRange& range) {
  Json schema{{"type", type}};
  const auto bound = [&](const char* key, double value) {
    if (value == static_cast<double>(static_cast<std::int64_t>(value))) {
      schema[key] = static_cast<std::int64_t>(value);
    } else {
      schema[key] = value;
    }
  };
  if (range.min > -kUnbounded) bound(range.min_open ? "exclusiveMinimum" : "minimum", range.min);
  if (range.max < kUnbounded) bound("maximum", range.max);
  return schema;
}

const Json& ExpressionSchema() {
  static const Json schema{{"type", "string"}, {"pattern", R"(^\s*\{\{[\s\S]*\}\}\s*$)"}};
  return schema;
}

/// The alternatives of a scalar. Whatever is no free text may also be one ${var}.
Json ScalarSchemas(const ValueShape& shape) {
  const Json text{{"type", Json::array({"string", "number", "boolean"})}};
  const Json variable{{"type", "string"}, {"pattern", R"(^\$\{[^}]*\}$)"}};
  switch (shape.scalar) {
    case kNone:
      return Json::array({variable});
    case kText:
    case kTemplate:
      return Json::array({text});
    case kScalar:
      return Json::array({{{"type", Json::array({"string", "number", "boolean", "null"})}}});
    case kExpression:
      return Json::array({ExpressionSchema(), variable});
    case kBool:
      return Json::array({{{"type", "boolean"}}, variable});
    case kInteger:
      return Json::array({NumberSchema("integer", shape.range), variable});
    case kNumber:
      return Json::array({NumberSchema("number", shape.range), variable});
    case kRowInteger:
      return Json::array({NumberSchema("integer", shape.range), ExpressionSchema(), variable});
    case kRowNumber:
      return Json::array({NumberSchema("number", shape.range), ExpressionSchema(), variable});
    case kSize:
      return Json::array(
          {{{"type", "integer"}, {"minimum", 1}},
           {{"type", "string"}, {"pattern", R"(^[0-9.]+ ?([KMGT]i?)?B$)"}},
           variable}
      );
    case kErrorLimit:
      return Json::array(
          {{{"type", "integer"}, {"minimum", 0}},
           {{"type", "string"}, {"pattern", R"(^[0-9.]+ ?%$)"}},
           variable}
      );
    case kWord:
      return Json::array({{{"enum", shape.words}}, variable});
  }
  return Json::array();
}

Json ShapeSchema(const ValueShape& shape) {
  Json any = ScalarSchemas(shape);
  if (shape.items != nullptr) {
    any.push_back({{"type", "array"}, {"items", ShapeSchema(*shape.items)}});
  }
  if (shape.section != nullptr) {
    any.push_back({{"$ref", "#/$defs/" + DefinitionOf(*shape.section)}});
  }
  if (shape.values != nullptr) {
    any.push_back({{"type", "object"}, {"additionalProperties", ShapeSchema(*shape.values)}});
  }
  if (shape.any_mapping) any.push_back({{"type", "object"}});
  return any.size() == 1 ? any[0] : Json{{"anyOf", any}};
}

Json KeySchema(const SpecKey& key) {
  Json schema = ShapeSchema(key.shape);
  std::string description(key.doc);
  if (!key.default_note.empty()) description += fmt::format(" Default: {}.", key.default_note);
  if (!key.default_value.empty()) description += fmt::format(" Default: {}.", key.default_value);
  schema["description"] = description;
  return schema;
}

Json SectionSchema(const SpecSection& section) {
  Json schema{{"type", "object"}, {"description", section.doc}, {"additionalProperties", false}};
  Json required = Json::array();
  for (const SpecKey& key : section.keys) {
    schema["properties"][std::string(key.name)] = KeySchema(key);
    if (key.required) required.push_back(key.name);
  }
  if (!required.empty()) schema["required"] = required;
  for (const std::string_view name : section.one_of) {
    schema["oneOf"].push_back({{"required", Json::array({name})}});
  }
  return schema;
}

}  // namespace

nlohmann::ordered_json JobFileSchema() {
  Json schema{
      {"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "Millstream job file"}
  };
  schema.update(SectionSchema(JobSection()));
  for (const SpecSection* section : AllSections()) {
    if (section != &JobSection()) schema["$defs"][DefinitionOf(*section)] = SectionSchema(*section);
  }
  return schema;
}

}  // namespace millstream
