// SPDX-License-Identifier: Apache-2.0
// What files that are read in ranges share: Arrow's interface, over one function.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "arrow/io/interfaces.h"
#include "arrow/type_fwd.h"
#include "base/status.h"

namespace millstream {

/// Thread-safe but for Seek, Tell and Read.
class RangeFile : public arrow::io::RandomAccessFile {
 public:
  Status Close() override;
  bool closed() const override { return is_closed_; }
  Result<std::int64_t> Tell() const override { return position_; }
  Status Seek(std::int64_t position) override;
  Result<std::int64_t> GetSize() override { return static_cast<std::int64_t>(size_bytes_); }
  Result<std::int64_t> Read(std::int64_t num_bytes, void* out) override;
  Result<std::shared_ptr<arrow::Buffer>> Read(std::int64_t num_bytes) override;
  Result<std::int64_t> ReadAt(std::int64_t position, std::int64_t num_bytes, void* out) override;
  Result<std::shared_ptr<arrow::Buffer>> ReadAt(std::int64_t position, std::int64_t num_bytes)
      override;

 protected:
  /// `name` is what messages call it. Buffers come from `pool`.
  RangeFile(std::string name, std::uint64_t size_bytes, arrow::MemoryPool* pool);
  const std::string& name() const { return name_; }

 private:
  /// Reads a range that lies in the file whole.
  virtual Status ReadRange(std::uint64_t at, std::uint64_t num_bytes, void* out) = 0;

  const std::string name_;
  const std::uint64_t size_bytes_;
  arrow::MemoryPool* const pool_;
  bool is_closed_ = false;
  std::int64_t position_ = 0;
};

}  // namespace millstream
