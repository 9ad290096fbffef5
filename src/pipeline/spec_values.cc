// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_values.h"

#include <array>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

#include "base/nearest.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

using enum ScalarType;

template <typename T>
std::optional<T> FromChars(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
  if (digits.empty() || std::string_view(".0123456789").find(digits[0]) == std::string_view::npos) {
    return std::nullopt;  // "inf" and "nan" are no numbers here
  }
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string_view ScalarWords(ScalarType type) {
  switch (type) {
    case kNone:
      return "";
    case kText:
      return "a string";
    case kTemplate:
      return "a template";
    case kExpression:
      return "an expression";
    case kBool:
      return "true or false";
    case kInteger:
      return "an integer";
    case kNumber:
      return "a number";
    case kRowInteger:
      return "an integer or an expression";
    case kRowNumber:
      return "a number or an expression";
    case kSize:
      return "a size";
    case kErrorLimit:
      return "an integer or a percentage";
    case kWord:
      return "a word";
    case kScalar:
      return "a scalar";
  }
  return "";
}

std::string JoinWords(std::span<const std::string_view> words) {
  if (words.size() <= 2) return fmt::format("{}", fmt::join(words, " or "));
  return fmt::format("one of {}", fmt::join(words, ", "));
}

std::string QuotedHint(const YamlNode& node) {
  YamlNode plain = node;
  plain.plain = true;
  const bool is_quoted_value = !node.plain && (NumberOf(plain) || BoolOf(plain));
  return is_quoted_value ? ": take its quotes away" : "";
}

std::optional<std::string> BoolProblem(const YamlNode& node) {
  if (BoolOf(node)) return std::nullopt;
  constexpr std::array<std::string_view, 8> kYes{"yes", "Yes", "YES", "on", "On", "ON", "y", "1"};
  constexpr std::array<std::string_view, 8> kNo{"no", "No", "NO", "off", "Off", "OFF", "n", "0"};
  for (const std::string_view word : kYes) {
    if (node.text == word) return fmt::format("write `true` instead of `{}`", word);
  }
  for (const std::string_view word : kNo) {
    if (node.text == word) return fmt::format("write `false` instead of `{}`", word);
  }
  return fmt::format("must be true or false, not {}{}", Clip(node.text), QuotedHint(node));
}

std::optional<std::string> NumberProblem(const YamlNode& node, const ValueShape& shape) {
  const bool per_row = shape.scalar == kRowInteger || shape.scalar == kRowNumber;
  if (per_row && IsOneExpression(node.text)) return std::nullopt;
  if (per_row && node.text.find("{{") != std::string::npos) {
    return "must be one {{ expression }} without text around it";
  }
  const bool integer = shape.scalar == kInteger || shape.scalar == kRowInteger;
  std::optional<double> value = NumberOf(node);
  if (integer) {
    const auto exact = IntegerOf(node);
    value = exact ? std::optional(static_cast<double>(*exact)) : std::nullopt;
  }
  const std::string_view digits =
      std::string_view(node.text).substr(node.text.starts_with('-') ? 1 : 0);
  if (!value && node.plain && integer && digits.size() > 18 &&
      digits.find_first_not_of("0123456789") == std::string_view::npos) {
    return fmt::format("does not fit into 64 bits: {}", Clip(node.text));
  }
  if (!value) {
    return fmt::format(
        "must be {}{}, not {}{}",
        integer ? "an integer" : "a number",
        per_row ? " or one {{ expression }}" : "",
        Clip(node.text),
        QuotedHint(node)
    );
  }
  auto problem = RangeProblem(shape.range, *value);
  if (problem) *problem += fmt::format(", not {}", node.text);
  return problem;
}

std::optional<std::string> WordProblem(const YamlNode& node, const ValueShape& shape) {
  for (const std::string_view word : shape.words) {
    if (node.text == word) return std::nullopt;
  }
  const std::string_view near = NearestName(node.text, shape.words);
  std::string problem = fmt::format("must be {}, not {}", JoinWords(shape.words), Clip(node.text));
  if (!shape.words_note.empty()) {
    problem += fmt::format(": {}", shape.words_note);
  } else if (!near.empty() && shape.words.size() > 2) {
    problem += fmt::format("; did you mean `{}`?", near);
  }
  return problem;
}

std::optional<std::string> ExpressionProblem(const YamlNode& node) {
  if (IsOneExpression(node.text)) return std::nullopt;
  if (node.text.find("{{") != std::string::npos || node.text.find("{%") != std::string::npos) {
    return "must be one {{ expression }} without text around it";
  }
  return fmt::format("must be one expression: write \"{{{{ {} }}}}\"", Trim(node.text));
}

}  // namespace

std::string Clip(std::string_view text) {
  constexpr std::size_t kMax = 60;
  if (text.size() <= kMax) return fmt::format("`{}`", text);
  std::size_t end = kMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;  // whole characters
  }
  return fmt::format("`{}...`", text.substr(0, end));
}

std::optional<std::int64_t> IntegerOf(const YamlNode& node) {
  if (!node.IsScalar() || !node.plain) return std::nullopt;
  return FromChars<std::int64_t>(node.text);
}

std::optional<double> NumberOf(const YamlNode& node) {
  if (!node.IsScalar() || !node.plain) return std::nullopt;
  return FromChars<double>(node.text);
}

std::optional<bool> BoolOf(const YamlNode& node) {
  if (!node.IsScalar() || !node.plain) return std::nullopt;
  if (node.text == "true" || node.text == "True" || node.text == "TRUE") return true;
  if (node.text == "false" || node.text == "False" || node.text == "FALSE") return false;
  return std::nullopt;
}

std::optional<std::uint64_t> SizeOf(const YamlNode& node) {
  if (!node.IsScalar()) return std::nullopt;
  const std::string_view text = node.text;
  const std::size_t end = text.find_first_not_of("0123456789.");
  const auto number = FromChars<double>(text.substr(0, end));
  const std::string_view unit = end == std::string_view::npos ? "B" : Trim(text.substr(end));
  constexpr std::array<std::pair<std::string_view, double>, 9> kUnits{
      {{"B", 1},
       {"KB", 1e3},
       {"MB", 1e6},
       {"GB", 1e9},
       {"TB", 1e12},
       {"KiB", 1024.0},
       {"MiB", 1048576.0},
       {"GiB", 1073741824.0},
       {"TiB", 1099511627776.0}}
  };
  for (const auto& [name, bytes] : kUnits) {
    if (!number || unit != name) continue;
    const double size = *number * bytes;
    if (size >= 0 && size <= 0x1p62) return static_cast<std::uint64_t>(size);
  }
  return std::nullopt;
}

std::optional<ErrorLimit> ErrorLimitOf(const YamlNode& node) {
  if (!node.IsScalar()) return std::nullopt;
  std::string_view text = Trim(node.text);
  const bool is_percent = text.ends_with('%');
  if (is_percent) {
    const auto value = FromChars<double>(Trim(text.substr(0, text.size() - 1)));
    if (!value || *value < 0 || *value > 100) return std::nullopt;
    return ErrorLimit{*value, true};
  }
  const auto count = FromChars<std::int64_t>(text);
  if (!node.plain || !count || *count < 0) return std::nullopt;
  return ErrorLimit{static_cast<double>(*count), false};
}

bool IsOneExpression(std::string_view text) {
  text = Trim(text);
  if (text.size() < 4 || !text.starts_with("{{") || !text.ends_with("}}")) return false;
  return text.substr(2, text.size() - 4).find("{{") == std::string_view::npos;
}

std::optional<std::string> ScalarProblem(const YamlNode& node, const ValueShape& shape) {
  switch (shape.scalar) {
    case kNone:
      return fmt::format("must be {}, not {}", DescribeShape(shape), Clip(node.text));
    case kScalar:
    case kTemplate:
      return std::nullopt;
    case kText:
      if (node.text.empty()) return "must not be empty";
      return std::nullopt;
    case kExpression:
      return ExpressionProblem(node);
    case kBool:
      return BoolProblem(node);
    case kInteger:
    case kNumber:
    case kRowInteger:
    case kRowNumber:
      return NumberProblem(node, shape);
    case kSize:
      if (const auto size = SizeOf(node); size && *size > 0) return std::nullopt;
      return fmt::format("must be a size such as 4GiB or 512MiB, not {}", Clip(node.text));
    case kErrorLimit:
      if (ErrorLimitOf(node)) return std::nullopt;
      return fmt::format(
          "must be a count such as 10 or a percentage such as 1%, not {}", Clip(node.text)
      );
    case kWord:
      return WordProblem(node, shape);
  }
  return std::nullopt;
}

std::string DescribeShape(const ValueShape& shape) {
  std::string words;
  const auto add = [&words](std::string_view more) {
    if (!words.empty()) words += " or ";
    words += more;
  };
  if (shape.scalar == kWord) {
    add(JoinWords(shape.words));
  } else if (shape.scalar != kNone) {
    add(ScalarWords(shape.scalar));
  }
  if (shape.items != nullptr && shape.items->section != nullptr) {
    add("a list of mappings");
  } else if (shape.items != nullptr && shape.items->scalar == kWord) {
    add(fmt::format("a list of {}", fmt::join(shape.items->words, ", ")));
  } else if (shape.items != nullptr) {
    const std::string_view item = ScalarWords(shape.items->scalar);
    add(fmt::format("a list of {}s", item.substr(item.find(' ') + 1)));
  }
  if (shape.section != nullptr || shape.values != nullptr || shape.any_mapping) add("a mapping");
  return words;
}

nlohmann::ordered_json ToJson(const YamlNode& node) {
  using Json = nlohmann::ordered_json;
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kList: {
      Json list = Json::array();
      for (const YamlNode& child : node.children) list.push_back(ToJson(child));
      return list;
    }
    case YamlNode::Kind::kMap: {
      Json map = Json::object();
      for (const YamlNode& child : node.children) map[child.key] = ToJson(child);
      return map;
    }
    case YamlNode::Kind::kScalar:
      break;
  }
  if (const auto value = BoolOf(node)) return *value;
  if (const auto value = IntegerOf(node)) return *value;
  if (const auto value = NumberOf(node); value && std::isfinite(*value)) return *value;
  return node.text;
}

}  // namespace millstream
