// SPDX-License-Identifier: Apache-2.0
// Between Arrow columns and expressions: columns as an expression reads them, and its values as a
// column.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "pipeline/row_batch.h"
#include "text/template.h"

namespace millstream {

/// Evaluates a compiled expression over the rows of a batch. Names that are no columns are
/// undefined.
Result<Values> EvaluateOver(const Expression& expression, const arrow::RecordBatch& columns);

/// The Arrow type that fits all values (int64, double, bool, utf8, JSON text), or null if none is
/// defined. Ints and doubles mix to double; any other mix is text.
std::shared_ptr<arrow::DataType> TypeOfValues(const Values& values);

/// Makes the column of `field` from values. A row whose value failed or does not fit is null and
/// named in `failed`.
Result<std::shared_ptr<arrow::Array>> ValuesToArray(
    const Values& values,
    const arrow::Field& field,
    const std::string& step,
    std::vector<FailedRow>* failed
);

}  // namespace millstream
