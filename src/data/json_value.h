// SPDX-License-Identifier: Apache-2.0
// JSON text to Arrow values and back: the one mapping that the readers, the writers, `set` and structured
// outputs share.
//
// Big integers and decimals keep every digit. Timestamps, dates and times are ISO 8601 strings, binary is
// base64, maps are objects. NaN and infinities are the strings "NaN", "Infinity", "-Infinity".

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "arrow/array/builder_base.h"
#include "arrow/type_fwd.h"
#include "base/status.h"

namespace millstream {

/// Appends one JSON value to `builder`. If it does not fit the builder's type, appends nothing and returns Invalid
/// with why ("is a string, expected int64").
Status AppendJson(std::string_view json, arrow::ArrayBuilder& builder);

/// Appends the value at `row` of `array` to `out` as compact JSON, floats in their shortest round-trip form.
Status WriteJson(const arrow::Array& array, std::int64_t row, std::string& out);

/// Parses a type's name as job files write it: "int64", "string", "list<string>", "struct<a: int64, b: string>",
/// "decimal(10, 2)", "timestamp[us, UTC]", "map<string, int64>", "bool", "date32", ...
Result<std::shared_ptr<arrow::DataType>> ParseType(std::string_view name);
/// The inverse of ParseType.
std::string TypeName(const arrow::DataType& type);

}  // namespace millstream
