// SPDX-License-Identifier: Apache-2.0
// What of a spec changed between the run that made an output and this one.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace millstream {

struct SpecDifference {
  std::string field;  // "steps.answer.max_tokens": as --set and --accept-change take it
  std::string text;   // "line 12: steps.answer.max_tokens: 64 -> 32"
};

/// The differing leaves that can change an answer. Threads, memory, split size, name, output path
/// and max_errors may change freely. `step_ids` are those of `after`, in order.
std::vector<SpecDifference> SpecDifferences(
    const nlohmann::ordered_json& before,
    const nlohmann::ordered_json& after,
    const std::map<std::string, int>& lines,
    const std::vector<std::string>& step_ids
);

/// Whether a field that was given covers one that differs: it is the same, or above it.
bool Covers(const std::string& given, const std::string& field);

}  // namespace millstream
