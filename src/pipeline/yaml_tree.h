// SPDX-License-Identifier: Apache-2.0
// YAML as a tree that remembers what messages and defaults need: lines, quotes, the text as
// written.
//
// Aliases and merge keys are resolved, within bounds. Duplicate keys, syntax errors and expressions
// without quotes are mistakes; where one can be read past, reading goes on, so that all of them are
// found at once.

#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millstream {

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string text;    // a scalar without its quotes; a null as written: "", "~" or "null"
  bool plain = false;  // a scalar without quotes: its type follows from its text
  int line = 0;        // from 1, a map entry's is its key's; 0: from the command line
  std::string option;  // the command-line option it came from ("--set"), or empty
  std::string key;     // of an entry of a map
  std::vector<YamlNode> children;

  bool IsNull() const { return kind == Kind::kNull; }
  bool IsScalar() const { return kind == Kind::kScalar; }
  bool IsList() const { return kind == Kind::kList; }
  bool IsMap() const { return kind == Kind::kMap; }
  /// The entry of a map, or null.
  const YamlNode* Find(std::string_view name) const;
  YamlNode* Find(std::string_view name);
};

/// Gets a mistake: its line, the key's path (may be empty) and what is wrong.
using YamlMistake =
    std::function<void(int line, const std::string& path, const std::string& message)>;

/// Reads one YAML document. Returns nullopt if it cannot be read at all; whether there were
/// mistakes only `report` knows.
std::optional<YamlNode> ReadYaml(std::string text, const YamlMistake& report);

/// `path` with one more key or index: "steps[2].generate".
std::string PathOf(std::string_view path, std::string_view key);
std::string PathOf(std::string_view path, std::size_t index);

}  // namespace millstream
