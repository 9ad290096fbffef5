// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_check.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "base/nearest.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "pipeline/spec_values.h"

namespace millstream {
namespace {

std::vector<std::string_view> NamesOf(const SpecSection& section) {
  std::vector<std::string_view> names;
  for (const SpecKey& key : section.keys) names.push_back(key.name);
  return names;
}

/// Whether the node's own kind is one that the shape takes.
bool KindFits(const YamlNode& node, const ValueShape& shape) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return false;
    case YamlNode::Kind::kScalar:
      return true;  // ScalarProblem decides
    case YamlNode::Kind::kList:
      return shape.items != nullptr;
    case YamlNode::Kind::kMap:
      return shape.section != nullptr || shape.values != nullptr || shape.any_mapping;
  }
  return false;
}

bool TakesOnlyMapping(const ValueShape& shape) {
  return shape.scalar == ScalarType::kNone && shape.items == nullptr;
}

std::string KindProblem(const YamlNode& node, const ValueShape& shape) {
  const std::string wanted = DescribeShape(shape);
  if (node.IsNull()) return fmt::format("has no value: must be {}", wanted);
  return fmt::format("must be {}, not a {}", wanted, node.IsList() ? "list" : "mapping");
}

const ForeignName* FindForeign(const SpecSection& section, std::string_view key) {
  for (const ForeignName& foreign : section.foreign) {
    if (foreign.name == key) return &foreign;
  }
  return nullptr;
}

/// The key that is meant by one that `section` does not have, or an empty view.
std::string_view MeantKey(const SpecSection& section, std::string_view key) {
  const ForeignName* foreign = FindForeign(section, key);
  return foreign != nullptr ? foreign->ours : NearestName(key, NamesOf(section));
}

/// Checks that exactly one key of `section.one_of` is there. `meant`: keys that stand there
/// misspelt.
void CheckOneOf(
    const YamlNode& node,
    const SpecSection& section,
    const std::string& path,
    const std::set<std::string_view>& meant,
    SpecMistakes& mistakes
) {
  const YamlNode* first = nullptr;
  for (const YamlNode& entry : node.children) {
    if (std::find(section.one_of.begin(), section.one_of.end(), entry.key) ==
        section.one_of.end()) {
      continue;
    }
    if (first != nullptr) {
      mistakes.Add(
          entry,
          PathOf(path, entry.key),
          fmt::format(
              "stands beside `{}`: there can be only one of {}{}",
              first->key,
              fmt::join(section.one_of, ", "),
              section.one_of_note
          )
      );
    }
    if (first == nullptr) first = &entry;
  }
  const bool is_meant =
      meant.contains("") ||  // what is not supported may be one
      std::any_of(section.one_of.begin(), section.one_of.end(), [&](std::string_view name) {
        return meant.contains(name);
      });
  if (first != nullptr || is_meant || section.one_of.empty()) return;
  mistakes.Add(node, path, fmt::format("one of {} is missing", fmt::join(section.one_of, ", ")));
}

void CheckSection(
    const YamlNode& node,
    const SpecSection& section,
    const std::string& path,
    SpecMistakes& mistakes
) {
  std::set<std::string_view> meant;
  for (const YamlNode& entry : node.children) {
    const std::string entry_path = PathOf(path, entry.key);
    const SpecKey* key = section.Find(entry.key);
    if (key == nullptr) {
      mistakes.Add(entry, entry_path, UnknownKeyMessage(section, entry.key));
      meant.insert(MeantKey(section, entry.key));
    } else if (!entry.IsMap() && !entry.IsNull() && TakesOnlyMapping(key->shape)) {
      mistakes.Add(
          entry,
          entry_path,
          fmt::format(
              "must be a mapping, such as `{}: {}`, not {}",
              key->name,
              key->example,
              entry.IsList()   ? "a list"
              : key->is_secret ? "a text"
                               : Clip(entry.text)
          )
      );
    } else {
      CheckTree(entry, key->shape, entry_path, mistakes);
    }
  }
  for (const SpecKey& key : section.keys) {
    if (!key.required || node.Find(key.name) != nullptr || meant.contains(key.name)) continue;
    mistakes.Add(node, PathOf(path, key.name), fmt::format("is missing. {}", key.doc));
  }
  CheckOneOf(node, section, path, meant, mistakes);
}

// An expression in braces alone, which a line of its own would have made a map.
std::string_view ExpressionHint(const YamlNode& node) {
  return node.IsMap() && node.children.size() == 1 && node.children[0].IsNull() &&
                 node.children[0].text.empty()
             ? "; an expression needs double braces and quotes: \"{{ ... }}\""
             : "";
}

bool IsDefault(const SpecKey& key, const nlohmann::ordered_json& value) {
  if (key.default_value.empty()) return false;
  const auto node = ReadYaml(std::string(key.default_value), [](int, const auto&, const auto&) {});
  return node && CanonicalJson(*node, key.shape, "", nullptr) == value;
}

nlohmann::ordered_json CanonicalScalar(const YamlNode& node, const ValueShape& shape) {
  switch (shape.scalar) {
    case ScalarType::kBool:
    case ScalarType::kInteger:
    case ScalarType::kNumber:
    case ScalarType::kRowInteger:
    case ScalarType::kRowNumber:
      return ToJson(node);
    default:
      return node.text;
  }
}

}  // namespace

void NormaliseTree(YamlNode& node, const ValueShape& shape) {
  const SpecSection* section = shape.section;
  if (section != nullptr && !section->shorthand.empty() && (node.IsScalar() || node.IsList())) {
    YamlNode value = std::move(node);
    node = YamlNode{};
    node.kind = YamlNode::Kind::kMap;
    node.line = value.line;
    node.option = value.option;
    node.key = std::exchange(value.key, std::string(section->shorthand));
    node.children.push_back(std::move(value));
  }
  if (node.IsList() && shape.items != nullptr) {
    for (YamlNode& child : node.children) {
      const bool as_written = shape.items->scalar == ScalarType::kScalar;
      if (as_written && child.IsNull() && !child.text.empty()) child.kind = YamlNode::Kind::kScalar;
      NormaliseTree(child, *shape.items);
    }
  }
  if (!node.IsMap()) return;
  if (section != nullptr) {
    std::erase_if(node.children, [](const YamlNode& child) {
      return child.IsNull() && !child.text.empty();
    });
  }
  for (YamlNode& child : node.children) {
    const SpecKey* key = section != nullptr ? section->Find(child.key) : nullptr;
    if (key != nullptr) NormaliseTree(child, key->shape);
    if (shape.values != nullptr) NormaliseTree(child, *shape.values);
  }
}

void CheckTree(
    const YamlNode& node, const ValueShape& shape, const std::string& path, SpecMistakes& mistakes
) {
  if (!KindFits(node, shape)) {
    mistakes.Add(node, path, KindProblem(node, shape) + std::string(ExpressionHint(node)));
    return;
  }
  if (node.IsScalar()) {
    if (auto problem = ScalarProblem(node, shape)) mistakes.Add(node, path, std::move(*problem));
    return;
  }
  if (node.IsList()) {
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      CheckTree(node.children[i], *shape.items, PathOf(path, i), mistakes);
    }
    return;
  }
  if (shape.section != nullptr) {
    CheckSection(node, *shape.section, path, mistakes);
  } else if (shape.values != nullptr) {
    for (const YamlNode& child : node.children) {
      CheckTree(child, *shape.values, PathOf(path, child.key), mistakes);
    }
  }
}

std::string UnknownKeyMessage(const SpecSection& section, std::string_view key) {
  if (const ForeignName* foreign = FindForeign(section, key)) {
    if (foreign->ours.empty()) return std::string(foreign->note);
    return fmt::format("is called `{}` here{}", foreign->ours, foreign->note);
  }
  if (const std::string_view near = MeantKey(section, key); !near.empty()) {
    return fmt::format("unknown key; did you mean `{}`?", near);
  }
  for (const SpecSection* other : AllSections()) {
    if (other->Find(key) != nullptr) {
      return fmt::format("unknown key here; it belongs into `{}`", other->name);
    }
  }
  return fmt::format("unknown key; {} takes {}", section.name, fmt::join(NamesOf(section), ", "));
}

nlohmann::ordered_json CanonicalJson(
    const YamlNode& node,
    const ValueShape& shape,
    const std::string& path,
    std::map<std::string, int>* lines
) {
  using Json = nlohmann::ordered_json;
  if (lines != nullptr) (*lines)[path] = node.line;
  if (node.IsScalar()) return CanonicalScalar(node, shape);
  if (node.IsList() && shape.items != nullptr) {
    Json list = Json::array();
    for (std::size_t i = 0; i < node.children.size(); ++i) {
      list.push_back(CanonicalJson(node.children[i], *shape.items, PathOf(path, i), lines));
    }
    return list;
  }
  if (!node.IsMap() || shape.any_mapping) return ToJson(node);
  Json map = Json::object();
  if (shape.section == nullptr) {
    for (const YamlNode& child : node.children) {
      map[child.key] = CanonicalJson(child, *shape.values, PathOf(path, child.key), lines);
    }
    return map;
  }
  for (const SpecKey& key : shape.section->keys) {
    const YamlNode* child = node.Find(key.name);
    if (child == nullptr || !key.changes_rows) continue;
    Json value = CanonicalJson(*child, key.shape, PathOf(path, key.name), lines);
    if (!IsDefault(key, value)) map[std::string(key.name)] = std::move(value);
  }
  return map;
}

}  // namespace millstream
