// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only.
//
// The mapping is as long as the file was when it was opened. A file that somebody truncates later
// raises SIGBUS when a lost page is touched, as with every program that maps its input; replace
// model files by renaming a new one over them, which leaves open mappings whole.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace millstream {

/// Immutable; thread-safe.
class MappedFile {
 public:
  /// Maps a regular file. Empty files map to an empty span.
  static Result<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  const std::span<const std::byte> bytes_;
};

}  // namespace millstream
