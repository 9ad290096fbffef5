// SPDX-License-Identifier: Apache-2.0
// The types of columns, from the values seen in text formats.
//
// Nulls fit every type. Integers widen to double. A column has the type of at least 95 % of its
// values; the others become errors of their rows. Integers beyond int64 make the column uint64
// (none negative), else decimal128(38, 0).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/type_fwd.h"
#include "base/status.h"
#include "data/json_document.h"
#include "data/name_index.h"

namespace millstream {

/// Counts the values of one column (or, nested, of one field or of a list's items) by kind. Counts
/// merge by being added to.
struct ValueCounts {
  std::int64_t bools = 0;
  std::int64_t ints = 0;       // within int64
  std::int64_t big_uints = 0;  // beyond int64, within uint64
  std::int64_t big_ints = 0;   // beyond both, of at most 38 digits
  std::int64_t huge_ints = 0;  // of more digits
  std::int64_t negatives = 0;  // of the above
  std::int64_t doubles = 0;
  std::int64_t non_finite = 0;  // NaN and infinities by name, in CSV
  std::int64_t strings = 0;
  std::int64_t lists = 0;
  std::int64_t objects = 0;
  NameIndex field_names;
  std::vector<std::unique_ptr<ValueCounts>> fields;  // of objects, in order of first appearance
  std::unique_ptr<ValueCounts> items;                // of lists
  bool open_ended =
      false;  // too many field names, or nested too deep, for a struct: kept as JSON text

  void AddJson(const JsonNode& value, int depth = 0);
  void AddCell(std::string_view cell, bool quoted);
  /// Returns false, counting nothing, if `text` is no number.
  bool AddNumber(std::string_view text);
  /// The counts of a field, which is added if it is new. `guess` is where it may stand, then one
  /// beyond.
  ValueCounts& Field(std::string_view name, std::size_t& guess);
  const ValueCounts* FindField(std::string_view name) const;

  std::int64_t numbers() const {
    return ints + big_uints + big_ints + huge_ints + doubles + non_finite;
  }
  std::int64_t total() const { return bools + numbers() + strings + lists + objects; }
};

struct InferredType {
  std::shared_ptr<arrow::DataType> type;  // null where the column is JSON text
  std::int64_t num_misfits = 0;
};

/// The type of a JSON column. Fails if no kind has 95 % of the values, at the top or below: the
/// message gives the path, the counts of each kind and the `schema:` lines that settle it.
Result<InferredType> InferJsonType(const ValueCounts& counts, const std::string& column);
/// The type of a CSV column: a string where no other fits.
InferredType InferCsvType(const ValueCounts& counts);

enum class NumberKind { kNone, kInt, kBigUint, kBigInt, kHugeInt, kDouble };
/// What a text is as a number in JSON's grammar (no sign but a minus, no leading zeros).
NumberKind ClassifyNumber(std::string_view text);
/// NaN, Infinity and their usual spellings in CSV files.
bool IsNonFinite(std::string_view text);
/// "true" or "false", as CSV files spell them.
bool IsBool(std::string_view text);

}  // namespace millstream
