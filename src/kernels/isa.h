// SPDX-License-Identifier: Apache-2.0
// The instruction sets that kernels are written for, and which of them this machine has.

#pragma once

#include <optional>
#include <string_view>

namespace millstream::kernels {

/// One set of kernels. Results are reproducible within one, and differ in the last bits between
/// them.
enum class Isa {
  kReference,   // plain C++: obvious, slow, runs everywhere
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL; bf16 values are widened and multiplied as f32
  kAvx512Bf16,  // the same with VNNI, and bf16 dot products where those are faster than f32's
};

std::string_view IsaName(Isa isa);  // "reference", "avx2", "avx512", "avx512_bf16"
std::optional<Isa> IsaByName(std::string_view name);

/// Whether the processor and the operating system support it.
bool IsSupported(Isa isa);

/// The fastest supported one. Intel's AVX-512 BF16 runs dot products at half the rate of f32 FMA,
/// so there kAvx512 is the faster in bf16, while AMD's runs them at twice that rate.
Isa FastestIsa();

/// Whether the processor has bf16 dot products, fast or slow.
bool HasBf16();

}  // namespace millstream::kernels
