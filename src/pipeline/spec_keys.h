// SPDX-License-Identifier: Apache-2.0
// The one table of everything a job file may say.
//
// Checking, defaults, the JSON Schema, the reference in docs/job-file.md, `--set` and "did you
// mean" all read it, so that they cannot drift apart.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace millstream {

struct SpecSection;

/// What a scalar means.
enum class ScalarType : std::uint8_t {
  kNone,        // no scalar here
  kText,        // taken as it stands
  kTemplate,    // text with {{ expressions }}
  kExpression,  // exactly one {{ expression }}
  kBool,
  kInteger,
  kNumber,
  kRowInteger,  // an integer, or one {{ expression }} per row
  kRowNumber,
  kSize,        // bytes: 4GiB
  kErrorLimit,  // a count or a percentage
  kWord,        // one of `words`
  kScalar       // any scalar, taken as written
};

inline constexpr double kUnbounded = 1e300;

/// The numbers that a key takes.
struct NumberRange {
  double min = -kUnbounded;
  double max = kUnbounded;
  bool min_open = false;  // above min, not equal to it
};

/// How a value may be written: as a scalar, a list, a mapping, or some of them.
struct ValueShape {
  ScalarType scalar = ScalarType::kNone;
  NumberRange range = {};
  std::span<const std::string_view> words = {};
  std::string_view words_note = {};      // why there are no others
  const ValueShape* items = nullptr;     // a list of these
  const SpecSection* section = nullptr;  // a mapping with the section's keys
  const ValueShape* values = nullptr;    // a mapping from names that the user chooses
  bool any_mapping = false;  // a mapping that is taken as it stands (a JSON Schema, say)
};

struct SpecKey {
  std::string_view name;
  ValueShape shape;
  std::string_view default_value = {};  // as YAML; empty: none
  std::string_view default_note = {};   // where the default is no fixed value
  std::string_view doc;
  std::string_view example;
  bool required = false;
  bool changes_rows = true;  // false: a rerun with another value may continue
  bool is_secret = false;    // what is written there is in no message
};

/// A name from elsewhere, with what to say about it.
struct ForeignName {
  std::string_view name;
  std::string_view ours;  // the key of the same section that does it, or empty
  std::string_view note = {};
};

/// A mapping with known keys.
struct SpecSection {
  std::string_view name;  // as messages and the reference call it
  std::string_view doc;
  std::span<const SpecKey> keys;
  std::span<const ForeignName> foreign = {};
  std::string_view shorthand = {};  // the key that a value without the mapping stands for
  std::span<const std::string_view> one_of = {};  // exactly one of these is given
  std::string_view one_of_note = {};              // what to do about a second one

  const SpecKey* Find(std::string_view key) const;
};

/// The whole job file.
const SpecSection& JobSection();
/// Every section, in the order of the reference.
std::span<const SpecSection* const> AllSections();

/// "at least 1 and at most 64"; empty if any number will do.
std::string DescribeRange(const NumberRange& range);
/// Why `value` is not in `range`, or nullopt.
std::optional<std::string> RangeProblem(const NumberRange& range, double value);

}  // namespace millstream
