// SPDX-License-Identifier: Apache-2.0
// What changes a job file's tree before it is checked: `vars:`, --var, --set and --output.

#pragma once

#include <string>
#include <vector>

#include "pipeline/parse_spec.h"
#include "pipeline/spec_mistakes.h"
#include "pipeline/yaml_tree.h"

namespace millstream {

/// Applies `overrides` to the tree and puts the values of ${vars} in.
void ApplyOverrides(YamlNode& root, const SpecOverrides& overrides, SpecMistakes& mistakes);

/// The id of each entry of `steps`: given, or the output column of a generate, or its kind with a
/// number. Empty where the step is too wrong to have one.
std::vector<std::string> StepIds(const YamlNode& steps);

}  // namespace millstream
