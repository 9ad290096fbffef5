// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file: where the tensors lie. Untrusted, as gguf.h says.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/tensor_table.h"

namespace millstream {

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by their place in the file
  std::uint64_t data_begin = 0;

  static Result<SafetensorsHeader> Parse(std::span<const std::byte> file);
};

}  // namespace millstream
