// SPDX-License-Identifier: Apache-2.0
// What the two halves of the table of keys share: shapes, ranges, and the sections of `generate`
// and `score`.

#pragma once

#include "pipeline/spec_keys.h"

namespace millstream {

using enum ScalarType;

inline constexpr NumberRange Between(double min, double max) {
  return {.min = min, .max = max};
}
inline constexpr NumberRange AboveUpTo(double min, double max) {
  return {min, max, true};
}
inline constexpr double kMaxInt32 = 2147483647;
inline constexpr double kMostTokens = 1
                                      << 24;  // no limit that a message or the reference would name

inline constexpr ValueShape kTextValue{.scalar = kText};
inline constexpr ValueShape kBoolValue{.scalar = kBool};
inline constexpr ValueShape kTemplateValue{.scalar = kTemplate};
inline constexpr ValueShape kScalarValue{.scalar = kScalar};
inline constexpr ValueShape kTokenId{.scalar = kInteger, .range = Between(0, kMaxInt32)};
inline constexpr ValueShape kTextList{.items = &kTextValue};
inline constexpr ValueShape kTextOrList{.scalar = kText, .items = &kTextValue};
inline constexpr ValueShape kTextMap{.values = &kTextValue};
inline constexpr ValueShape kAnyMapping{.any_mapping = true};
inline constexpr ValueShape kAnyValue{
    .scalar = kScalar, .items = &kScalarValue, .any_mapping = true
};

extern const SpecSection kGenerate;
extern const SpecSection kScore;
extern const SpecSection kMessage;
extern const SpecSection kPart;
extern const SpecSection kStructured;
extern const SpecSection kOverflow;
extern const SpecSection kResponseFormat;
extern const SpecSection kJsonSchema;

}  // namespace millstream
