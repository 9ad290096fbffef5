// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace millstream {

struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

}  // namespace millstream
