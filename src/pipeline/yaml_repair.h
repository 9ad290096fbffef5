// SPDX-License-Identifier: Apache-2.0
// What to say about YAML that cannot be read, and the one repair that lets reading go on: quotes
// around an expression. In YAML, {{ x }} without quotes is a map within a map, or no YAML at all.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millstream {

std::vector<std::string_view> SplitLines(std::string_view text);

/// An expression that got its quotes.
struct QuotedExpression {
  int line = 0;
  std::string text;
};

/// Puts quotes around the first unquoted {{ expression }} on `line` of `text`, or, where YAML
/// noticed late, on one of the two before. Returns nullopt if there is none.
std::optional<QuotedExpression> QuoteExpression(std::string& text, int line);

/// yaml-cpp's message in words that help.
std::string ExplainYamlError(
    std::string_view message, const std::vector<std::string_view>& lines, int line, int column
);

}  // namespace millstream
