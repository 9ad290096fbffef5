// SPDX-License-Identifier: Apache-2.0
// One hash of the row data of an output, independent of part size and format.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "arrow/record_batch.h"
#include "base/status.h"

namespace millstream {

/// Hashes rows in order: values and nulls of every column by the schema's logical types, never by
/// how they are encoded, batched or sliced. Two outputs are "the same" when their digests are
/// equal.
class RowDigest {
 public:
  explicit RowDigest(std::shared_ptr<arrow::Schema> schema);
  ~RowDigest();
  RowDigest(const RowDigest&) = delete;
  RowDigest& operator=(const RowDigest&) = delete;

  /// REQUIRES: a batch of the schema.
  Status Add(const arrow::RecordBatch& batch);
  /// 128 bits in hexadecimal.
  std::string Hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace millstream
