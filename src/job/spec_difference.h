// SPDX-License-Identifier: Apache-2.0
// What of a spec changed between the run that made an output and this one.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace millstream {

/// The differing leaves that can change an answer, one line each: "line 12:
/// steps.answer.max_tokens: 64 -> 32". Threads, memory, split size, name, output path and
/// max_errors may change freely.
std::vector<std::string> SpecDifferences(
    const nlohmann::ordered_json& before,
    const nlohmann::ordered_json& after,
    const std::map<std::string, int>& lines
);

}  // namespace millstream
