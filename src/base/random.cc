// SPDX-License-Identifier: Apache-2.0
#include "base/random.h"

#include <array>

namespace millstream {
namespace {

struct Wide {
  std::uint32_t high;
  std::uint32_t low;
};

Wide Multiply(std::uint32_t a, std::uint32_t b) {
  const std::uint64_t product = std::uint64_t{a} * b;
  return {static_cast<std::uint32_t>(product >> 32), static_cast<std::uint32_t>(product)};
}

}  // namespace

std::uint64_t RandomBits(RandomKey key, std::uint64_t counter) {
  // The 128-bit counter holds the draw's number and the key's upper half; the key its lower half.
  std::array<std::uint32_t, 4> x = {
      static_cast<std::uint32_t>(counter),
      static_cast<std::uint32_t>(counter >> 32),
      static_cast<std::uint32_t>(key.high),
      static_cast<std::uint32_t>(key.high >> 32)
  };
  auto k0 = static_cast<std::uint32_t>(key.low);
  auto k1 = static_cast<std::uint32_t>(key.low >> 32);
  for (int round = 0; round < 10; ++round) {
    const Wide a = Multiply(0xD2511F53U, x[0]);
    const Wide b = Multiply(0xCD9E8D57U, x[2]);
    x = {b.high ^ x[1] ^ k0, b.low, a.high ^ x[3] ^ k1, a.low};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return (std::uint64_t{x[1]} << 32) | x[0];
}

double RandomUnit(RandomKey key, std::uint64_t counter) {
  return static_cast<double>(RandomBits(key, counter) >> 11) * 0x1.0p-53;
}

}  // namespace millstream
