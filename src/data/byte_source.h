// SPDX-License-Identifier: Apache-2.0
// The bytes of one text file as a stream, decompressed on the way.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "data/input.h"

namespace millstream {

/// One thread. Its memory does not grow with the file, whatever the compression ratio.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Fills `out` with up to `size` bytes; fewer only at the end, where it returns 0.
  virtual Result<std::size_t> Read(char* out, std::size_t size) = 0;
  /// How many bytes of the file on disk have been read.
  virtual std::uint64_t bytes_read() const = 0;
  /// The xxh3 of those bytes, if it was asked for.
  virtual std::uint64_t hash() const = 0;
};

/// Opens a file, at `offset` if `compression` is kNone. REQUIRES: else offset 0. A compressed
/// stream that is broken, ends early, or expands more than 1000:1 above 1 MiB, is an error of Read.
Result<std::unique_ptr<ByteSource>> OpenBytes(
    const InputFile& file, Compression compression, std::uint64_t offset, bool with_hash
);

}  // namespace millstream
