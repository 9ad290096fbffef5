// SPDX-License-Identifier: Apache-2.0
// JSON text to Arrow values and back: the one mapping that the readers, the writers, `set` and
// structured outputs share.
//
// Big integers and decimals are numbers that keep every digit. Timestamps, dates and times are ISO
// 8601 strings, binary is base64. A map is an object if its keys are strings, else a list of [key,
// value]. NaN and infinities are the strings "NaN", "Infinity", "-Infinity". A string field marked
// as JSON text (JsonTextField) inside a struct, list or map is the JSON itself.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "arrow/array/builder_base.h"
#include "arrow/type_fwd.h"
#include "base/status.h"
#include "data/json_document.h"

namespace millstream {

/// Appends one JSON value to `builder`. If it does not fit the builder's type, appends nothing and
/// returns Invalid with why: "is a string, expected int64", "at b[2] is 300, out of range for
/// uint8".
///
/// Nothing is rounded away: an integer has no fraction, a decimal and a time are no finer than
/// their type, an integer of many digits is a double only if the double prints those digits again.
/// A missing member of a struct is null, an unknown one does not fit, of a double one the last
/// counts.
Status AppendJson(std::string_view json, arrow::ArrayBuilder& builder);

/// The same for a parsed value. `type` is the builder's, which a nested builder would make anew at
/// each call.
Status AppendJson(const JsonNode& value, const arrow::DataType& type, arrow::ArrayBuilder& builder);

/// Appends the value at `row` of `array` to `out` as compact JSON, floats in their shortest
/// round-trip form. Fails for intervals, unions and run-end encoded arrays, which have no JSON.
Status WriteJson(const arrow::Array& array, std::int64_t row, std::string& out);
/// Whether WriteJson knows the type, with all inside it.
bool HasJson(const arrow::DataType& type);

/// Appends a parsed value as compact JSON.
void WriteJson(const JsonNode& value, std::string& out);
/// Appends a string as JSON, its quotes included.
void WriteJsonString(std::string_view text, std::string& out);
/// Appends JSON text in its one compact form; text that is no JSON becomes a JSON string.
void WriteCanonicalJson(std::string_view json, std::string& out);

/// Parses a type's name as job files write it: "int64", "string", "list<string>", "struct<a: int64,
/// b: string>", "decimal(10, 2)", "timestamp[us, UTC]", "map<string, int64>", "bool", "date32", ...
Result<std::shared_ptr<arrow::DataType>> ParseType(std::string_view name);
/// The inverse of ParseType.
std::string TypeName(const arrow::DataType& type);

}  // namespace millstream
