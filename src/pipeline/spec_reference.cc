// SPDX-License-Identifier: Apache-2.0
// The table of keys as Markdown.
#include <string>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "pipeline/parse_spec.h"
#include "pipeline/spec_keys.h"
#include "pipeline/spec_values.h"

namespace millstream {
namespace {

std::string DescribeDefault(const SpecKey& key) {
  if (key.required) return "required";
  if (!key.default_value.empty()) return fmt::format("default `{}`", key.default_value);
  if (!key.default_note.empty()) return fmt::format("default: {}", key.default_note);
  return "optional";
}

std::string DescribeKey(const SpecKey& key) {
  const std::string range = DescribeRange(key.shape.range);
  return fmt::format(
      "- **`{}`** ({}{}; {}). {} Example: `{}: {}`\n",
      key.name,
      DescribeShape(key.shape),
      range.empty() || key.shape.scalar == ScalarType::kSize ? "" : ", " + range,
      DescribeDefault(key),
      key.doc,
      key.name,
      key.example
  );
}

}  // namespace

std::string JobFileReference() {
  std::string text;
  for (const SpecSection* section : AllSections()) {
    if (!text.empty()) text += "\n";
    text += fmt::format(
        "### `{}`\n\n{}", section == &JobSection() ? "(top)" : section->name, section->doc
    );
    if (!section->one_of.empty()) {
      text += fmt::format(" Exactly one of `{}` is given.", fmt::join(section->one_of, "`, `"));
    }
    text += "\n\n";
    for (const SpecKey& key : section->keys) text += DescribeKey(key);
  }
  return text;
}

}  // namespace millstream
