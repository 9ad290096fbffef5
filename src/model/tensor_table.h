// SPDX-License-Identifier: Apache-2.0
// The tensors of a checkpoint by name, and the checks that every format's tensors go through.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"

namespace millstream {

/// Names the supported types, for messages.
inline constexpr std::string_view kSupportedTensorTypes =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";

/// Bytes that a tensor takes, or nullopt if its row is not whole blocks, a dimension is below 1 or
/// the arithmetic overflows.
std::optional<std::uint64_t> TensorBytes(TensorType type, std::span<const std::int64_t> shape);

/// A tensor as a header states it.
struct TensorEntry {
  std::string name;
  TensorType type = TensorType::kF32;
  std::string unsupported;          // the type's name, if it is none of ours
  std::vector<std::int64_t> shape;  // row-major
  std::uint64_t begin = 0;          // of the file
  std::uint64_t size = 0;
};

/// Checks that the entries' names differ and that their ranges lie within [data_begin, file_size)
/// without overlapping. Sorts them by their place.
Status CheckEntries(
    std::vector<TensorEntry>& entries, std::uint64_t data_begin, std::uint64_t file_size
);

using TensorTable = std::map<std::string, TensorView, std::less<>>;

/// Names the first tensor that is missing or misshapen. Biases that are there must fit, too.
Status CheckTensors(const ModelConfig& config, const TensorTable& tensors);

/// Checks that the numbers of a configuration are in range and agree with one another.
Status CheckConfig(const ModelConfig& config);

/// A name from an untrusted header for a message: quoted, printable, not long.
std::string Quoted(std::string_view text);
/// "[576, 1536]"
std::string ShapeText(std::span<const std::int64_t> shape);

}  // namespace millstream
