// SPDX-License-Identifier: Apache-2.0
// Makes columns fit what a format can hold, and gives them their types back.

#pragma once

#include <memory>
#include <string>

#include "arrow/record_batch.h"
#include "base/status.h"

namespace millstream {

/// The type without dictionaries in it, at any depth.
std::shared_ptr<arrow::DataType> WithoutDictionaries(const std::shared_ptr<arrow::DataType>& type);

/// The same values in another type that can hold each of them: decoded, encoded, of another unit.
Result<std::shared_ptr<arrow::Array>> Restore(
    const std::shared_ptr<arrow::Array>& array, const std::shared_ptr<arrow::DataType>& type
);
/// Does so for each column. Fails if the columns have other names.
Result<std::shared_ptr<arrow::RecordBatch>> Restore(
    const arrow::RecordBatch& batch, const std::shared_ptr<arrow::Schema>& schema
);

}  // namespace millstream
