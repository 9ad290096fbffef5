// SPDX-License-Identifier: Apache-2.0
// What a machine can do at most, measured in this process on the threads that compute: the limit
// that the kernels are judged by. Clocks, neighbours and virtual machines change it from minute to
// minute.

#pragma once

#include "kernels/isa.h"
#include "kernels/team.h"

namespace millstream::kernels {

/// A second, on all threads together. A multiply-add is two operations.
struct Peaks {
  double f32_flops = 0;
  double bf16_flops = 0;  // with an instruction set that has no bf16 dot products, that of f32
  double int8_ops = 0;    // "reference" computes no faster than in f32
  double bytes_per_second = 0;  // read from memory; 0 if there is none for a buffer
};

/// The best of a few short runs of each, in registers alone and over a buffer of several times the
/// last cache, but `buffer_bytes_max` at most; takes about a second. REQUIRES: IsSupported(isa).
Peaks MeasurePeaks(Isa isa, Team& team, std::size_t buffer_bytes_max);

}  // namespace millstream::kernels
