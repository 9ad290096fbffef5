// SPDX-License-Identifier: Apache-2.0
#include "pipeline/yaml_repair.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace millstream {
namespace {

constexpr std::string_view kSpace = " \t\r";

std::size_t TrimmedEnd(std::string_view line, std::size_t end) {
  while (end > 0 && kSpace.find(line[end - 1]) != std::string_view::npos) --end;
  return end;
}

/// What stands on a line before one of its places.
struct LineState {
  char quote = '\0';         // the open quote, if any
  int brackets = 0;          // open { and [
  bool starts_value = true;  // only a key, a dash or a bracket before it
};

LineState Advance(LineState state, char c) {
  if (state.quote != '\0') {
    if (c == state.quote) state.quote = '\0';
    return state;
  }
  if ((c == '"' || c == '\'') && state.starts_value) state.quote = c;
  if (c == '{' || c == '[') ++state.brackets;
  if (c == '}' || c == ']') --state.brackets;
  constexpr std::string_view kBeforeValue = ":-,[{ \t";
  state.starts_value =
      c == ' ' || c == '\t' ? state.starts_value : kBeforeValue.find(c) != std::string_view::npos;
  return state;
}

/// The first {{ that begins a value without quotes: its place, and whether it stands within
/// brackets.
std::optional<std::pair<std::size_t, bool>> FindUnquoted(std::string_view line) {
  LineState state;
  for (std::size_t at = 0; at < line.size(); ++at) {
    if (state.quote == '\0' && line[at] == '#' && (at == 0 || line[at - 1] == ' ')) {
      return std::nullopt;
    }
    if (state.quote == '\0' && state.starts_value && line.substr(at).starts_with("{{")) {
      return std::pair(at, state.brackets > 0);
    }
    state = Advance(state, line[at]);
  }
  return std::nullopt;
}

std::size_t EndOfExpression(std::string_view line, std::size_t begin, bool in_brackets) {
  const std::size_t last = line.rfind("}}");
  if (last == std::string_view::npos || last < begin) return std::string_view::npos;
  if (!in_brackets) {
    const std::size_t comment = line.find(" #", last);
    return TrimmedEnd(line, std::min(comment, line.size()));
  }
  std::size_t end = begin;
  for (;;) {
    end = line.find("}}", end);
    if (end == std::string_view::npos) return end;
    end += 2;
    const std::size_t stop = std::min(line.find_first_of(",]}", end), line.size());
    if (line.substr(end, stop - end).find("{{") == std::string_view::npos) {
      return TrimmedEnd(line, stop);
    }
  }
}

std::string Quoted(std::string_view value) {
  if (value.find_first_of("\"\\") == std::string_view::npos) return '"' + std::string(value) + '"';
  std::string quoted = "'";
  for (const char c : value) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  return quoted + "'";
}

struct Explanation {
  std::string_view theirs, ours;
};

constexpr std::array kExplanations = {
    Explanation{
        "illegal map value", "a `: ` within a value without quotes: put quotes around the value"
    },
    Explanation{
        "end of map not found", "the line does not fit the mapping above it: check its indentation"
    },
    Explanation{
        "end of sequence not found",
        "the line does not fit the list above it: check its indentation"
    },
    Explanation{
        "end of map flow not found", "a `{` is not closed, or a value within it needs quotes"
    },
    Explanation{
        "end of sequence flow not found", "a `[` is not closed, or a value within it needs quotes"
    },
    Explanation{"illegal flow end", "a `}` or `]` closes nothing"},
    Explanation{
        "illegal block entry", "a list item `- ` cannot stand here: put it on its own line"
    },
    Explanation{"illegal map key", "a key cannot stand here: check the indentation"},
    Explanation{"illegal EOF in scalar", "a quote is not closed"},
    Explanation{"illegal document indicator in scalar", "a quote is not closed before the `---`"},
    Explanation{
        "unknown escape character",
        "an unknown escape in double quotes: use single quotes, or write \\\\"
    },
    Explanation{
        "the referenced anchor is not defined", "the alias has no anchor: no `&name` above"
    },
    Explanation{"alias not found after *", "a value that begins with `*` needs quotes"},
    Explanation{"anchor not found after &", "a value that begins with `&` needs quotes"},
    Explanation{"illegal tab when looking for indentation", "a tab in the indentation: use spaces"},
};

}  // namespace

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::optional<QuotedExpression> QuoteExpression(std::string& text, int line) {
  const std::vector<std::string_view> lines = SplitLines(text);
  for (int candidate = line; candidate > 0 && candidate > line - 3; --candidate) {
    if (static_cast<std::size_t>(candidate) > lines.size()) continue;
    const std::string_view source = lines[static_cast<std::size_t>(candidate) - 1];
    const auto found = FindUnquoted(source);
    if (!found) continue;
    const std::size_t end = EndOfExpression(source, found->first, found->second);
    if (end == std::string_view::npos || end <= found->first) continue;
    const std::string quoted = Quoted(source.substr(found->first, end - found->first));
    const auto offset = static_cast<std::size_t>(source.data() - text.data()) + found->first;
    text.replace(offset, end - found->first, quoted);
    return QuotedExpression{candidate, quoted};
  }
  return std::nullopt;
}

std::string ExplainYamlError(
    std::string_view message, const std::vector<std::string_view>& lines, int line, int column
) {
  std::string ours(message);
  for (const Explanation& explanation : kExplanations) {
    if (message.starts_with(explanation.theirs)) ours = explanation.ours;
  }
  if (line > 0 && static_cast<std::size_t>(line) <= lines.size()) {
    const std::string_view source = lines[static_cast<std::size_t>(line) - 1];
    const std::string_view indent = source.substr(0, source.find_first_not_of(" \t"));
    if (indent.find('\t') != std::string_view::npos) ours = "a tab in the indentation: use spaces";
    const bool has_quotes = source.find_first_of("\"'") != std::string_view::npos;
    if (source.find("{{") != std::string_view::npos && !has_quotes) {
      ours += "; a value with an expression needs quotes";
    }
  }
  return "is no valid YAML, column " + std::to_string(column) + ": " + ours;
}

}  // namespace millstream
