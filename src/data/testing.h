// SPDX-License-Identifier: Apache-2.0
// Random types and values for the property tests of this folder.

#pragma once

#include <cstdint>
#include <memory>
#include <random>

#include "arrow/record_batch.h"
#include "arrow/type_fwd.h"

namespace millstream {

using TestRandom = std::mt19937_64;

/// A type that every format holds, nested at most `depth` levels.
std::shared_ptr<arrow::DataType> RandomType(TestRandom& random, int depth);

/// Values of the type with nulls among them: extremes, odd strings, empty lists; sometimes a slice
/// of a longer array.
std::shared_ptr<arrow::Array> RandomArray(
    const std::shared_ptr<arrow::DataType>& type, std::int64_t length, TestRandom& random
);

/// Columns of random types, named "c0", "c1", ...
std::shared_ptr<arrow::Schema> RandomSchema(int num_columns, TestRandom& random);
std::shared_ptr<arrow::RecordBatch> RandomBatch(
    const std::shared_ptr<arrow::Schema>& schema, std::int64_t num_rows, TestRandom& random
);

}  // namespace millstream
