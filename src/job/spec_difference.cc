// SPDX-License-Identifier: Apache-2.0
#include "job/spec_difference.h"

#include <charconv>
#include <string_view>

#include "base/compact_json.h"
#include "fmt/format.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

bool MayChange(const std::string& path) {
  return path == "name" || path == "max_errors" || path == "split_rows" || path == "output.path" ||
         (path.starts_with("models.") && (path.ends_with(".threads") || path.ends_with(".memory")));
}

void Flatten(
    const Json& json, const std::string& path, std::map<std::string, std::string>& leaves
) {
  if (json.is_object() && !json.empty()) {
    for (const auto& [key, value] : json.items()) {
      Flatten(value, path.empty() ? key : fmt::format("{}.{}", path, key), leaves);
    }
  } else if (json.is_array() && !json.empty()) {
    for (std::size_t i = 0; i < json.size(); ++i) {
      Flatten(json[i], fmt::format("{}[{}]", path, i), leaves);
    }
  } else {
    leaves[path] = CompactJson(json);
  }
}

// "steps[0].generate.prompt" by the step's id: "steps.answer.prompt".
std::string FieldOf(const std::string& path, const std::vector<std::string>& step_ids) {
  constexpr std::string_view kSteps = "steps[";
  if (!path.starts_with(kSteps)) return path;
  std::size_t step = 0;
  const char* end = path.data() + path.size();
  const auto parsed = std::from_chars(path.data() + kSteps.size(), end, step);
  if (parsed.ec != std::errc() || step >= step_ids.size()) return path;
  std::string rest(parsed.ptr + 1, end);  // behind the bracket: ".generate.prompt", ".id"
  const std::size_t dot = rest.find('.', 1);
  if (dot != std::string::npos) rest = rest.substr(dot);
  return fmt::format("steps.{}{}", step_ids[step], rest);
}

}  // namespace

bool Covers(const std::string& given, const std::string& field) {
  return field.starts_with(given) &&
         (field.size() == given.size() || field[given.size()] == '.' || field[given.size()] == '[');
}

std::vector<SpecDifference> SpecDifferences(
    const Json& before,
    const Json& after,
    const std::map<std::string, int>& lines,
    const std::vector<std::string>& step_ids
) {
  std::map<std::string, std::string> old_leaves, new_leaves;
  Flatten(before, "", old_leaves);
  Flatten(after, "", new_leaves);
  std::map<std::string, std::pair<std::string, std::string>> changed;
  for (const auto& [path, value] : old_leaves) {
    const auto found = new_leaves.find(path);
    if (found == new_leaves.end()) {
      changed[path] = {value, "(absent)"};
    } else if (found->second != value) {
      changed[path] = {value, found->second};
    }
  }
  for (const auto& [path, value] : new_leaves) {
    if (!old_leaves.contains(path)) changed[path] = {"(absent)", value};
  }
  std::vector<SpecDifference> differences;
  for (const auto& [path, values] : changed) {
    if (MayChange(path)) continue;
    const auto line = lines.find(path);
    const std::string where =
        line == lines.end() || line->second == 0 ? "" : fmt::format("line {}: ", line->second);
    const std::string field = FieldOf(path, step_ids);
    differences.push_back(
        {field, fmt::format("{}{}: {} -> {}", where, field, values.first, values.second)}
    );
  }
  return differences;
}

}  // namespace millstream
