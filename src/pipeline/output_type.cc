// SPDX-License-Identifier: Apache-2.0
#include "pipeline/output_type.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "arrow/type.h"
#include "data/input.h"
#include "fmt/format.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// Walks a schema; `why` gets the first place that has no Arrow type.
class Walk {
 public:
  Walk(const Json& root, std::string& why) : root_(root), why_(why) {}

  // The field for one value: JSON text where the schema has no Arrow type.
  std::shared_ptr<arrow::Field> Field(
      const std::string& name, const Json& schema, const std::string& place, int depth
  ) {
    if (auto type = Type(schema, place, depth)) return arrow::field(name, std::move(type));
    return JsonTextField(name);
  }

  std::shared_ptr<arrow::DataType> Type(const Json& schema, const std::string& place, int depth) {
    if (depth > 16) return None("recursion", place);
    if (!schema.is_object()) return None("a schema that is not an object", place);
    if (const auto ref = schema.find("$ref"); ref != schema.end()) {
      return Referenced(*ref, place, depth);
    }
    for (const char* key : {"anyOf", "oneOf", "allOf", "not", "if"}) {
      if (schema.contains(key)) return None(key, place);
    }
    if (const auto values = schema.find("enum"); values != schema.end()) {
      return OfValues(*values, place);
    }
    if (const auto value = schema.find("const"); value != schema.end()) {
      return OfValues(Json::array({*value}), place);
    }
    return Named(TypeName(schema), schema, place, depth);
  }

 private:
  // The one type that the schema names; "null" beside it only makes the column nullable, which all
  // are.
  static std::string TypeName(const Json& schema) {
    const auto type = schema.find("type");
    if (type == schema.end()) return schema.contains("properties") ? "object" : "";
    if (type->is_string()) return type->get<std::string>();
    std::string name;
    if (type->is_array()) {
      for (const Json& one : *type) {
        if (one == "null") continue;
        if (!name.empty()) return "";
        name = one.is_string() ? one.get<std::string>() : "";
      }
    }
    return name;
  }

  std::shared_ptr<arrow::DataType> Named(
      const std::string& name, const Json& schema, const std::string& place, int depth
  ) {
    if (name == "string") return arrow::utf8();
    if (name == "integer") return arrow::int64();
    if (name == "number") return arrow::float64();
    if (name == "boolean") return arrow::boolean();
    if (name == "null") return arrow::null();
    if (name == "array") {
      const auto items = schema.find("items");
      if (items == schema.end() || schema.contains("prefixItems")) {
        return None("an array without one `items`", place);
      }
      return arrow::list(Field("item", *items, place + "/items", depth + 1));
    }
    if (name == "object") return OfObject(schema, place, depth);
    return None(name.empty() ? "no single type" : "type " + name, place);
  }

  std::shared_ptr<arrow::DataType> OfObject(
      const Json& schema, const std::string& place, int depth
  ) {
    const auto properties = schema.find("properties");
    const auto additional = schema.find("additionalProperties");
    const bool open = additional != schema.end() && *additional != false;
    if (properties == schema.end() || !properties->is_object() || properties->empty() || open ||
        schema.contains("patternProperties")) {
      return None("a map", place);
    }
    arrow::FieldVector fields;
    for (const auto& [name, property] : properties->items()) {
      fields.push_back(
          Field(name, property, fmt::format("{}/properties/{}", place, name), depth + 1)
      );
    }
    return arrow::struct_(fields);
  }

  std::shared_ptr<arrow::DataType> OfValues(const Json& values, const std::string& place) {
    const auto all = [&](auto test) {
      return values.is_array() && std::all_of(values.begin(), values.end(), [&](const Json& v) {
               return v.is_null() || test(v);
             });
    };
    if (all([](const Json& v) { return v.is_string(); })) return arrow::utf8();
    if (all([](const Json& v) { return v.is_number_integer(); })) return arrow::int64();
    if (all([](const Json& v) { return v.is_number(); })) return arrow::float64();
    if (all([](const Json& v) { return v.is_boolean(); })) return arrow::boolean();
    return None("an enum of several types", place);
  }

  std::shared_ptr<arrow::DataType> Referenced(
      const Json& ref, const std::string& place, int depth
  ) {
    const std::string target = ref.is_string() ? ref.get<std::string>() : "";
    if (std::find(open_.begin(), open_.end(), target) != open_.end()) {
      return None("recursion", place);
    }
    if (target.rfind("#/", 0) != 0) return None("$ref " + target, place);
    try {
      open_.push_back(target);
      auto type = Type(root_.at(Json::json_pointer(target.substr(1))), place, depth + 1);
      open_.pop_back();
      return type;
    } catch (const Json::exception&) {
      open_.pop_back();
      return None("$ref " + target, place);
    }
  }

  std::shared_ptr<arrow::DataType> None(const std::string& what, const std::string& place) {
    if (why_.empty()) why_ = what + " at " + place;
    return nullptr;
  }

  const Json& root_;
  std::string& why_;
  std::vector<std::string> open_;
};

void Close(Json& schema) {
  if (schema.is_array()) {
    for (Json& item : schema) Close(item);
  }
  if (!schema.is_object()) return;
  for (auto& [key, value] : schema.items()) {
    if (key == "properties" || key == "$defs" || key == "definitions") {
      for (auto& [name, property] : value.items()) Close(property);
    } else if (key != "enum" && key != "const" && key != "default" && key != "examples") {
      Close(value);
    }
  }
  if (const auto properties = schema.find("properties");
      properties != schema.end() && properties->is_object() &&
      !schema.contains("additionalProperties") && !schema.contains("patternProperties")) {
    schema["additionalProperties"] = false;
  }
}

}  // namespace

OutputType TypeOfSchema(const nlohmann::ordered_json& schema) {
  OutputType output;
  output.type = Walk(schema, output.why_text).Type(schema, "#", 0);
  if (!output.type) {
    output.type = arrow::utf8();
    output.is_json_text = true;
  }
  return output;
}

nlohmann::ordered_json CloseObjects(const nlohmann::ordered_json& schema) {
  Json closed = schema;
  Close(closed);
  return closed;
}

}  // namespace millstream
