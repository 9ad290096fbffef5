// SPDX-License-Identifier: Apache-2.0
// What the suites of docs/reliability.md share: settings from the environment, and a line about
// what was reached, which scripts/torture sums up.

#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>

#include "fmt/format.h"

namespace millstream {

/// Sanitizers take so much longer that a hundredth must do.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kIsSlow = true;
#else
inline constexpr bool kIsSlow = false;
#endif
inline constexpr std::int64_t kSlowness = kIsSlow ? 100 : 1;

/// A number that a variable of the environment gives, or another.
inline std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

inline std::uint64_t TortureSeed() {
  return FromEnvironment("MS_TORTURE_SEED", 1);
}

/// Whether a random suite goes on: until it did enough, or for MS_TORTURE_SECONDS.
class TortureClock {
 public:
  explicit TortureClock(std::int64_t enough) : enough_(enough) {}
  bool GoesOn(std::int64_t done) const {
    return limit_.count() == 0 ? done < enough_
                               : std::chrono::steady_clock::now() - start_ < limit_;
  }

 private:
  const std::int64_t enough_;
  const std::chrono::seconds limit_{FromEnvironment("MS_TORTURE_SECONDS", 0)};
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Prints how many of what a suite reached, and how many were wrong.
inline void ReportTorture(
    const char* suite, std::uint64_t seed, const char* what, std::int64_t count, std::int64_t wrong
) {
  fmt::print(
      "TORTURE {{\"suite\": \"{}\", \"seed\": {}, \"{}\": {}, \"wrong\": {}}}\n",
      suite,
      seed,
      what,
      count,
      wrong
  );
}

}  // namespace millstream
