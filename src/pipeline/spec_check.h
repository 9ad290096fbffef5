// SPDX-License-Identifier: Apache-2.0
// Holds a job file's tree against the table of keys.

#pragma once

#include <map>
#include <string>

#include "nlohmann/json.hpp"
#include "pipeline/spec_keys.h"
#include "pipeline/spec_mistakes.h"
#include "pipeline/yaml_tree.h"

namespace millstream {

/// Brings a tree into its one form: shorthands become mappings, and keys set to null are taken out,
/// for they mean the default.
void NormaliseTree(YamlNode& node, const ValueShape& shape);

/// Reports everything about `node` that `shape` does not allow.
void CheckTree(
    const YamlNode& node, const ValueShape& shape, const std::string& path, SpecMistakes& mistakes
);

/// What to say about a key that `section` does not have.
std::string UnknownKeyMessage(const SpecSection& section, std::string_view key);

/// A checked tree as JSON: keys in the table's order, defaults and keys that change no row left
/// out. `lines` gets the line of each value by its path.
nlohmann::ordered_json CanonicalJson(
    const YamlNode& node,
    const ValueShape& shape,
    const std::string& path,
    std::map<std::string, int>* lines
);

}  // namespace millstream
