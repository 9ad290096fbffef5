// SPDX-License-Identifier: Apache-2.0
// What the scalars of a job file mean. Plain numbers and booleans only: a quoted one is a string.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nlohmann/json.hpp"
#include "pipeline/spec.h"
#include "pipeline/spec_keys.h"
#include "pipeline/yaml_tree.h"

namespace millstream {

std::optional<std::int64_t> IntegerOf(const YamlNode& node);
std::optional<double> NumberOf(const YamlNode& node);
std::optional<bool> BoolOf(const YamlNode& node);
std::optional<std::uint64_t> SizeOf(const YamlNode& node);     // 4GiB
std::optional<ErrorLimit> ErrorLimitOf(const YamlNode& node);  // 10, 1%

/// `text` as a message quotes it, cut where it is long.
std::string Clip(std::string_view text);

/// Whether `text` is one {{ expression }}, apart from white space.
bool IsOneExpression(std::string_view text);

/// What is wrong with a scalar where `shape` is wanted, or nullopt.
std::optional<std::string> ScalarProblem(const YamlNode& node, const ValueShape& shape);

/// "an integer or an expression", "a list of strings": what `shape` takes.
std::string DescribeShape(const ValueShape& shape);

/// The node as JSON, plain scalars typed as YAML 1.2 types them.
nlohmann::ordered_json ToJson(const YamlNode& node);

}  // namespace millstream
