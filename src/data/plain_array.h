// SPDX-License-Identifier: Apache-2.0
// Arrays as rows carry them: without extensions, dictionaries, views and runs, which are ways to
// store values and not values; and conversions between types that lose nothing.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arrow/array/array_base.h"
#include "arrow/type_fwd.h"
#include "base/status.h"

namespace millstream {

/// The field with its type as rows carry it: an extension is its storage (nothing is ever
/// deserialised), a dictionary its values, a view the plain type. Fails for unions.
Result<std::shared_ptr<arrow::Field>> PlainField(const arrow::Field& field);

/// The same for the columns of a file, which messages name.
Result<std::shared_ptr<arrow::Schema>> PlainSchema(
    const arrow::Schema& schema, const std::string& file_name
);

/// The values of `array` in its plain type. REQUIRES: a valid array.
Result<std::shared_ptr<arrow::Array>> ToPlain(const std::shared_ptr<arrow::Array>& array);

/// The narrowest type that takes the values of both, by widening numbers, or null if there is none.
std::shared_ptr<arrow::DataType> WiderType(
    const std::shared_ptr<arrow::DataType>& a, const std::shared_ptr<arrow::DataType>& b
);

/// Converts to the type of `field` (JSON text too). Values that do not fit become null, and their
/// rows are added to `misfits`.
Result<std::shared_ptr<arrow::Array>> Convert(
    const std::shared_ptr<arrow::Array>& array,
    const arrow::Field& field,
    std::vector<std::int64_t>& misfits
);

/// Checks every value: offsets, indices, UTF-8, precision. Those that are wrong become null, and
/// their rows are added to `invalid`.
Result<std::shared_ptr<arrow::Array>> Validated(
    const std::shared_ptr<arrow::Array>& array, std::vector<std::int64_t>& invalid
);

}  // namespace millstream
