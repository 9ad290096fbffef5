// SPDX-License-Identifier: Apache-2.0
// The header of a GGUF file (versions 2 and 3, little-endian): metadata and where the tensors lie.
//
// The file is untrusted. Sizes go through CheckedSize, every length is at most the bytes left, and
// nothing is allocated that the file has no bytes for.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/tensor_table.h"

namespace millstream {

/// The numbers that stand in files.
enum class GgufType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

/// One value of the metadata: a scalar, a text or an array of one of the two. A view into the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;  // of an array: its elements'
  bool is_array = false;
  std::uint64_t count = 1;
  std::span<const std::byte> bytes;     // of numbers and booleans
  std::vector<std::string_view> texts;  // of texts

  /// Element `index` as an integer, if it is one within int64; as a number of any kind. REQUIRES:
  /// index < count.
  std::optional<std::int64_t> Integer(std::uint64_t index = 0) const;
  std::optional<double> Number(std::uint64_t index = 0) const;
};

/// A parsed header. Views into the bytes that it was parsed from.
struct GgufHeader {
  std::map<std::string_view, GgufValue> metadata;
  std::vector<TensorEntry> tensors;  // by their place in the file
  std::uint64_t data_begin = 0;

  static Result<GgufHeader> Parse(std::span<const std::byte> file);
};

}  // namespace millstream
