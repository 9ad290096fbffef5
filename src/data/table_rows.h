// SPDX-License-Identifier: Apache-2.0
// Rows out of the record batches of Parquet and Arrow files.

#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "arrow/record_batch.h"
#include "arrow/type.h"
#include "base/status.h"
#include "data/text_rows.h"

namespace millstream {

/// Turns a file's batch, whose first row is record `first_record`, into rows of `schema`: checks
/// every value, stores it plainly, converts it to the column's type. What is wrong becomes the
/// row's error.
Result<RowBatch> TableRows(
    const arrow::RecordBatch& batch,
    const std::shared_ptr<arrow::Schema>& schema,
    std::int64_t first_record
);

/// Rows that cannot be read, as errors that say `why`.
Result<RowBatch> UnreadableRows(
    const std::shared_ptr<arrow::Schema>& schema,
    std::int64_t first_record,
    std::int64_t num_rows,
    const std::string& why
);

/// Rows [offset, offset + length) of a batch.
RowBatch SliceRows(const RowBatch& rows, std::int64_t offset, std::int64_t length);

}  // namespace millstream
