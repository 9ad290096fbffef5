// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: draw t of a stream is a pure function of (key, t), so a draw never
// depends on a row's place in a batch, on threads or on a resume.
//
// Philox4x32-10, from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#pragma once

#include <cstdint>

namespace millstream {

/// Names one stream of draws: a hash of (seed, row id, step id, sample).
struct RandomKey {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
};

/// Returns 64 random bits: draw `counter` of the stream.
std::uint64_t RandomBits(RandomKey key, std::uint64_t counter);

/// Returns draw `counter` as a double in [0, 1).
double RandomUnit(RandomKey key, std::uint64_t counter);

}  // namespace millstream
