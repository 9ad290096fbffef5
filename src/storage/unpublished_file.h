// SPDX-License-Identifier: Apache-2.0
// A file on its way to an object store: in memory, or in a scratch file once it is big.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "arrow/io/interfaces.h"
#include "base/status.h"

namespace millstream {

/// Written by one thread, then read by any number.
class UnpublishedFile {
 public:
  explicit UnpublishedFile(std::uint64_t memory_bytes_max) : memory_bytes_max_(memory_bytes_max) {}
  ~UnpublishedFile();
  UnpublishedFile(const UnpublishedFile&) = delete;
  UnpublishedFile& operator=(const UnpublishedFile&) = delete;

  Status Append(std::string_view bytes);
  /// Ends writing. Idempotent.
  Status Finish();
  std::uint64_t size_bytes() const { return size_bytes_; }
  /// What was written. Valid as long as the file. REQUIRES: Finish() returned OK.
  std::string_view bytes() const;

 private:
  Status Spill();

  const std::uint64_t memory_bytes_max_;
  std::uint64_t size_bytes_ = 0;
  std::string memory_;
  int scratch_ = -1;        // a file without a name
  void* mapped_ = nullptr;  // of the scratch file
};

/// A stream that writes to it and finishes it as it is closed.
std::shared_ptr<arrow::io::OutputStream> StreamTo(std::shared_ptr<UnpublishedFile> file);

}  // namespace millstream
