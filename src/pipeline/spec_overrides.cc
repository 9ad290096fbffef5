// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_overrides.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "base/nearest.h"
#include "fmt/format.h"
#include "pipeline/spec_check.h"
#include "pipeline/spec_keys.h"
#include "storage/path.h"

namespace millstream {
namespace {

void MarkOption(YamlNode& node, const std::string& option) {
  node.line = 0;
  node.option = option;
  for (YamlNode& child : node.children) MarkOption(child, option);
}

YamlNode* FindOrAdd(YamlNode& map, const std::string& key) {
  if (YamlNode* found = map.Find(key)) return found;
  YamlNode entry;
  entry.key = key;
  entry.plain = true;
  map.children.push_back(std::move(entry));
  return &map.children.back();
}

void MakeMap(YamlNode& node, const std::string& option) {
  if (node.IsMap()) return;
  YamlNode map;
  map.kind = YamlNode::Kind::kMap;
  map.key = node.key;
  map.line = node.IsNull() ? 0 : node.line;
  map.option = node.IsNull() ? option : node.option;
  node = std::move(map);
}

/// Puts the values of vars where ${name} stands.
class Substitution {
 public:
  Substitution(const std::map<std::string, YamlNode>& vars, SpecMistakes& mistakes)
      : vars_(vars), mistakes_(mistakes) {}

  void Apply(YamlNode& node, const std::string& path) {
    if (node.IsList()) {
      for (std::size_t i = 0; i < node.children.size(); ++i) {
        Apply(node.children[i], PathOf(path, i));
      }
    } else if (node.IsMap()) {
      for (YamlNode& child : node.children) Apply(child, PathOf(path, child.key));
    } else if (node.IsScalar() && node.text.find("${") != std::string::npos) {
      ApplyScalar(node, path);
    }
  }

  const std::set<std::string>& used() const { return used_; }

 private:
  const YamlNode* Lookup(const std::string& name, const YamlNode& node, const std::string& path) {
    used_.insert(name);
    const auto found = vars_.find(name);
    if (found != vars_.end()) return &found->second;
    std::vector<std::string_view> names;
    names.reserve(vars_.size());
    for (const auto& [known, value] : vars_) names.push_back(known);
    const std::string_view near = NearestName(name, names);
    mistakes_.Add(
        node,
        path,
        near.empty()
            ? fmt::format(
                  "no var is called `{}`; name it under `vars`, or write $${{ for the text ${{",
                  name
              )
            : fmt::format("no var is called `{}`; did you mean `{}`?", name, near)
    );
    return nullptr;
  }

  void ApplyScalar(YamlNode& node, const std::string& path) {
    const std::size_t close = node.text.find('}');
    if (node.text.starts_with("${") && close + 1 == node.text.size()) {
      const YamlNode* value = Lookup(node.text.substr(2, close - 2), node, path);
      if (value == nullptr) return;
      YamlNode copy = *value;
      copy.key = node.key;
      copy.line = node.line;
      copy.option = node.option;
      node = std::move(copy);
      return;
    }
    std::string out;
    std::size_t at = 0;
    for (;;) {
      const std::size_t begin = node.text.find("${", at);
      if (begin == std::string::npos) break;
      if (begin > 0 && node.text[begin - 1] == '$') {  // $${ is the text ${
        out += node.text.substr(at, begin - at) + "{";
        at = begin + 2;
        continue;
      }
      const std::size_t end = node.text.find('}', begin);
      if (end == std::string::npos) {
        mistakes_.Add(node, path, "`${` is not closed; write $${ for the text ${");
        return;
      }
      out += node.text.substr(at, begin - at);
      const std::string name = node.text.substr(begin + 2, end - begin - 2);
      const YamlNode* value = Lookup(name, node, path);
      if (value != nullptr && !value->IsScalar()) {
        mistakes_.Add(
            node,
            path,
            fmt::format("the var `{}` is no single value: it can only stand alone", name)
        );
      } else if (value != nullptr) {
        out += value->text;
      }
      at = end + 1;
    }
    node.text = out + node.text.substr(at);
  }

  const std::map<std::string, YamlNode>& vars_;
  SpecMistakes& mistakes_;
  std::set<std::string> used_;
};

/// "steps[2].generate.max_tokens" or "steps.answer.max_tokens" in its parts.
std::vector<std::string> SplitPath(std::string_view path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '.' || c == '[') {
      if (!parts.back().empty()) parts.emplace_back();
    } else if (c != ']') {
      parts.back() += c;
    }
  }
  if (parts.back().empty()) parts.pop_back();
  return parts;
}

bool IsIndex(const std::string& part, std::size_t size) {
  const bool digits =
      !part.empty() && part.size() < 7 &&
      std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits && static_cast<std::size_t>(std::stoi(part)) < size;
}

/// Walks one --set's path down the tree and the table, and puts its value there.
class Setter {
 public:
  Setter(const std::string& path, SpecMistakes& mistakes)
      : path_(path), parts_(SplitPath(path)), mistakes_(mistakes) {}

  void Set(YamlNode& root, YamlNode value) {
    if (parts_.empty()) return Fail("names no key");
    ValueShape shape{.section = &JobSection()};
    YamlNode* node = &root;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      node = i == 1 && parts_[0] == "steps" ? EnterStep(*node, &shape)
                                            : Enter(*node, parts_[i], &shape);
      if (node == nullptr) return;
    }
    value.key = node->key;
    *node = std::move(value);
  }

 private:
  void Fail(const std::string& message) { mistakes_.Add("--set", {0, path_}, message); }

  YamlNode* Enter(YamlNode& node, const std::string& part, ValueShape* shape) {
    if (shape->section != nullptr) {
      const SpecKey* key = shape->section->Find(part);
      if (key == nullptr) {
        Fail(UnknownKeyMessage(*shape->section, part));
        return nullptr;
      }
      NormaliseTree(node, *shape);
      *shape = key->shape;
    } else if (shape->values != nullptr) {
      *shape = *shape->values;
    } else if (node.IsList() && shape->items != nullptr) {
      if (!IsIndex(part, node.children.size())) {
        Fail(fmt::format("there is no item `{}`; the list has {}", part, node.children.size()));
        return nullptr;
      }
      *shape = *shape->items;
      return &node.children[static_cast<std::size_t>(std::stoi(part))];
    } else if (!shape->any_mapping) {
      Fail(fmt::format("there is nothing below `{}`", entered_));
      return nullptr;
    }
    MakeMap(node, "--set");
    entered_ = part;
    return FindOrAdd(node, part);
  }

  // Steps go by id; what follows is a key of the step, or, for short, of what the step does.
  YamlNode* EnterStep(YamlNode& steps, ValueShape* shape) {
    const std::vector<std::string> ids = StepIds(steps);
    const std::string& part = parts_[1];
    auto found = std::find(ids.begin(), ids.end(), part);
    if (found == ids.end() && IsIndex(part, ids.size())) found = ids.begin() + std::stoi(part);
    if (found == ids.end()) {
      const std::vector<std::string_view> names(ids.begin(), ids.end());
      const std::string_view near = NearestName(part, names);
      Fail(
          near.empty() ? fmt::format("no step is called `{}`", part)
                       : fmt::format("no step is called `{}`; did you mean `{}`?", part, near)
      );
      return nullptr;
    }
    YamlNode& step = steps.children[static_cast<std::size_t>(found - ids.begin())];
    const SpecSection& section = *shape->items->section;
    *shape = *shape->items;
    const bool names_key = parts_.size() > 2 && section.Find(parts_[2]) != nullptr;
    if (names_key || !step.IsMap()) return &step;
    for (YamlNode& entry : step.children) {
      const SpecKey* key = section.Find(entry.key);
      if (key == nullptr || entry.key == "id") continue;
      *shape = key->shape;
      return &entry;
    }
    return &step;
  }

  const std::string path_;
  const std::vector<std::string> parts_;
  SpecMistakes& mistakes_;
  std::string entered_;  // the part that was walked last
};

std::optional<YamlNode> ReadSetValue(
    const std::string& path, const std::string& text, SpecMistakes& mistakes
) {
  if (text.find_first_not_of(" \t\n") == std::string::npos) {
    mistakes.Add("--set", {0, path}, "has no value");
    return std::nullopt;
  }
  auto value = ReadYaml(text, [&](int, const std::string&, const std::string& message) {
    mistakes.Add("--set", {0, path}, message);
  });
  if (value) MarkOption(*value, "--set");
  return value;
}

/// The vars of the file, replaced by the command line's.
std::map<std::string, YamlNode> CollectVars(
    const YamlNode& root, const SpecOverrides& overrides, SpecMistakes& mistakes
) {
  std::map<std::string, YamlNode> vars;
  if (const YamlNode* declared = root.Find("vars"); declared != nullptr && declared->IsMap()) {
    for (const YamlNode& entry : declared->children) {
      vars[entry.key] = entry;
      const std::string path = PathOf("vars", entry.key);
      if (entry.text.find("${") != std::string::npos) {
        mistakes.Add(entry, path, "a var cannot refer to another");
      }
      constexpr std::string_view kAllowed =
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
      if (entry.key.empty() || entry.key.find_first_not_of(kAllowed) != std::string::npos) {
        mistakes.Add(entry, path, "the name of a var must be made of letters, digits, _ and -");
      }
    }
  }
  for (const auto& [name, text] : overrides.vars) {
    YamlNode value;
    value.kind = YamlNode::Kind::kScalar;
    value.text = text;
    value.plain = true;
    value.option = "--var";
    vars[name] = std::move(value);
  }
  return vars;
}

void SetOutput(YamlNode& root, const std::string& path) {
  std::error_code error;
  std::string absolute =
      IsObjectPath(path) ? path : std::filesystem::absolute(path, error).string();
  if (error) absolute = path;
  if (path.ends_with('/') && !absolute.ends_with('/')) absolute += '/';
  YamlNode* output = FindOrAdd(root, "output");
  MakeMap(*output, "--output");
  const std::string suffix = std::filesystem::path(path).extension().string();
  if (!suffix.empty()) {
    // The suffix says it anew; only batch lines are JSON lines of a kind of their own.
    std::erase_if(output->children, [&](const YamlNode& n) {
      return n.key == "format" && !(suffix == ".jsonl" && n.text == "openai-batch");
    });
  }
  YamlNode* node = FindOrAdd(*output, "path");
  node->kind = YamlNode::Kind::kScalar;
  node->text = absolute;
  node->children.clear();
  MarkOption(*node, "--output");
}

}  // namespace

std::vector<std::string> StepIds(const YamlNode& steps) {
  std::vector<std::string> ids;
  if (!steps.IsList()) return ids;
  std::map<std::string, int> counts;
  for (const YamlNode& step : steps.children) {
    ids.emplace_back();
    const YamlNode* id = step.Find("id");
    const auto body =
        std::find_if(step.children.begin(), step.children.end(), [](const YamlNode& entry) {
          return entry.key != "id";
        });
    const int number = body == step.children.end() ? 0 : ++counts[body->key];
    if (id != nullptr && id->IsScalar()) {
      ids.back() = id->text;
    } else if (body != step.children.end() && (body->key == "generate" || body->key == "score")) {
      const YamlNode* as = body->Find("as");
      if (as != nullptr && as->IsScalar()) ids.back() = as->text;
    } else if (body != step.children.end()) {
      ids.back() = body->key + std::to_string(number);
    }
  }
  return ids;
}

void ApplyOverrides(YamlNode& root, const SpecOverrides& overrides, SpecMistakes& mistakes) {
  const auto apply_sets = [&](bool to_vars, Substitution* substitution) {
    for (const auto& [path, text] : overrides.sets) {
      if (path.starts_with("vars.") != to_vars) continue;
      auto value = ReadSetValue(path, text, mistakes);
      if (!value) continue;
      if (substitution != nullptr) substitution->Apply(*value, path);
      Setter(path, mistakes).Set(root, std::move(*value));
    }
  };
  apply_sets(true, nullptr);
  const std::map<std::string, YamlNode> vars = CollectVars(root, overrides, mistakes);
  Substitution substitution(vars, mistakes);
  for (YamlNode& entry : root.children) {
    if (entry.key != "vars") substitution.Apply(entry, entry.key);
  }
  apply_sets(false, &substitution);
  const YamlNode* declared = root.Find("vars");
  std::vector<std::string_view> names;
  if (declared != nullptr) {
    for (const YamlNode& entry : declared->children) names.push_back(entry.key);
  }
  for (const auto& [name, text] : overrides.vars) {
    const bool known = substitution.used().contains(name) ||
                       std::find(names.begin(), names.end(), name) != names.end();
    if (known) continue;
    const std::string_view near = NearestName(name, names);
    mistakes.Add(
        "--var",
        {0, name},
        near.empty() ? "the job file uses no such var"
                     : fmt::format("no such var; did you mean `{}`?", near)
    );
  }
  if (!overrides.output.empty()) SetOutput(root, overrides.output);
}

}  // namespace millstream
