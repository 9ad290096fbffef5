// SPDX-License-Identifier: Apache-2.0
// From a checked tree to the structs of spec.h, and the checks that need more than one key.
//
// Every function may meet values that CheckTree has refused: it skips them.

#pragma once

#include <string>
#include <vector>

#include "pipeline/spec.h"
#include "pipeline/spec_mistakes.h"
#include "pipeline/yaml_tree.h"

namespace millstream {

/// Reads all but file, folder, canonical and lines, which it wants set (folder) or leaves alone.
void BuildSpec(const YamlNode& root, JobSpec& spec, SpecMistakes& mistakes);

/// The same for one generate step.
GenerateSpec BuildGenerate(
    const YamlNode& node, const std::string& path, const std::string& folder, SpecMistakes& mistakes
);
/// The same for one score step.
GenerateSpec BuildScore(const YamlNode& node, const std::string& path, SpecMistakes& mistakes);

/// Reports a column name that a step may not create.
void CheckNewColumn(
    const YamlNode& node, std::string_view name, const std::string& path, SpecMistakes& mistakes
);

/// The scalar of an entry, its text; or nullopt.
std::optional<std::string> TextAt(const YamlNode& map, std::string_view key);
/// The texts of a list's scalars, or a scalar's.
std::vector<std::string> TextsAt(const YamlNode& map, std::string_view key);
SpecPlace PlaceOf(const YamlNode& node, std::string path);

}  // namespace millstream
