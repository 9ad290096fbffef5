// SPDX-License-Identifier: Apache-2.0
#include "model/json_file.h"

#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "model/mapped_file.h"
#include "model/tensor_table.h"

namespace millstream {

using nlohmann::json;

Result<std::string> ReadText(const std::string& path, std::uint64_t bytes_max) {
  MS_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  const auto bytes = file->bytes();
  if (bytes.size() > bytes_max) {
    return Status::Invalid("the file has ", bytes.size(), " bytes; at most ", bytes_max);
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<json> ParseObject(std::string_view text, std::string_view skip) {
  constexpr int kDepthMax = 128;
  std::vector<std::set<std::string>> keys;  // of the open objects, by their depth
  std::string twice;
  bool skipping = false;
  const auto look = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDepthMax) throw std::length_error("");
    const auto level = static_cast<std::size_t>(depth);
    if (event == json::parse_event_t::object_start) {
      keys.resize(level + 1);
      keys[level].clear();
    }
    if (event != json::parse_event_t::key || (depth > 1 && skipping)) return true;
    const auto& key = parsed.get_ref<const std::string&>();
    if (!keys[level - 1].insert(key).second) twice = key;
    skipping = depth == 1 && !skip.empty() && key == skip;
    return !skipping;
  };
  json value;
  try {
    value = json::parse(text, look, /*allow_exceptions=*/false);
  } catch (const std::length_error&) {
    return Status::Invalid("the JSON nests deeper than ", kDepthMax);
  }
  if (value.is_discarded()) return Status::Invalid("the text is not valid JSON");
  if (!value.is_object()) return Status::Invalid("the JSON is not an object");
  if (!twice.empty()) return Status::Invalid("the JSON key ", Quoted(twice), " appears twice");
  return value;
}

Result<JsonObject> JsonObject::Read(
    const std::string& folder, const std::string& name, std::uint64_t bytes_max
) {
  auto text = ReadText(folder + "/" + name, bytes_max);
  if (!text.ok()) return text.status().WithMessage(name, ": ", text.status().message());
  auto value = ParseObject(*text);
  if (!value.ok()) return value.status().WithMessage(name, ": ", value.status().message());
  return JsonObject(name, value.MoveValueUnsafe());
}

const json* JsonObject::Find(const char* key) const {
  const auto found = value_.find(key);
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

Status JsonObject::WrongType(const char* key, const char* expected) const {
  return Status::Invalid(name_, ": ", key, " is not ", expected);
}

Result<std::optional<std::int64_t>> JsonObject::Integer(const char* key) const {
  const json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  const bool fits = member->is_number_unsigned() ? member->get<std::uint64_t>() <= INT64_MAX
                                                 : member->is_number_integer();
  if (!fits) return WrongType(key, "an integer");
  return member->get<std::int64_t>();
}

Result<std::int64_t> JsonObject::RequiredInteger(const char* key) const {
  MS_ASSIGN_OR_RETURN(const auto value, Integer(key));
  if (!value) return Status::Invalid(name_, ": ", key, " is missing");
  return *value;
}

Result<std::optional<double>> JsonObject::Number(const char* key) const {
  const json* member = Find(key);
  if (member == nullptr) return std::nullopt;
  if (!member->is_number()) return WrongType(key, "a number");
  return member->get<double>();
}

Result<bool> JsonObject::Bool(const char* key, bool missing) const {
  const json* member = Find(key);
  if (member == nullptr) return missing;
  if (!member->is_boolean()) return WrongType(key, "true or false");
  return member->get<bool>();
}

Result<std::string> JsonObject::Text(const char* key) const {
  const json* member = Find(key);
  if (member == nullptr) return std::string();
  if (!member->is_string()) return WrongType(key, "a text");
  return member->get<std::string>();
}

}  // namespace millstream
