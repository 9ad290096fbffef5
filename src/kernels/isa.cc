// SPDX-License-Identifier: Apache-2.0
#include "kernels/isa.h"

#include <array>

namespace millstream::kernels {
namespace {

constexpr std::array kAll = {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "reference";
}

std::optional<Isa> IsaByName(std::string_view name) {
  for (const Isa isa : kAll) {
    if (IsaName(isa) == name) return isa;
  }
  return std::nullopt;
}

bool HasBf16() {
  return HasAvx512() && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vnni");
}

bool IsSupported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return HasAvx512();
    case Isa::kAvx512Bf16:
      return HasBf16();
  }
  return false;
}

Isa FastestIsa() {
  if (HasBf16() && __builtin_cpu_is("amd")) return Isa::kAvx512Bf16;
  if (HasAvx512()) return Isa::kAvx512;
  return IsSupported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kReference;
}

}  // namespace millstream::kernels
