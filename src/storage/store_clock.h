// SPDX-License-Identifier: Apache-2.0
// Time and chance, for whoever waits for a store: a test puts its own in their place.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

namespace millstream {

/// Thread-safe.
class StoreClock {
 public:
  virtual ~StoreClock() = default;
  /// Time since some fixed moment; it never goes back.
  virtual std::chrono::milliseconds Now() = 0;
  /// Returns false, at once, if `stop` is requested.
  virtual bool Wait(std::chrono::milliseconds duration, std::stop_token stop) = 0;
  virtual std::uint64_t Random() = 0;
};

std::shared_ptr<StoreClock> MakeSystemClock();

/// A name that nobody else has: 128 random bits in hexadecimal.
std::string UniqueName(StoreClock& clock);

}  // namespace millstream
