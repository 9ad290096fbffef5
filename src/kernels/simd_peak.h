// SPDX-License-Identifier: Apache-2.0
// What MeasurePeaks() times, over a vector type as in simd.h.

#pragma once

#include <cstddef>
#include <cstdint>

namespace millstream::kernels {
namespace {

/// Calls Op::Add(sum, x) on more sums than additions can be under way at once, and returns how many
/// operations that was. `V` is the type of sums and operands.
template <class Op, class V, int kSums>
std::int64_t AddInRegisters() {
  constexpr std::int64_t kTurns = 2000;  // a few microseconds
  V sums[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sums[i] = V{};
  V x = Op::Operand();
  for (std::int64_t turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) {
      asm("" : "+v"(x));  // what it holds now no compiler knows: nothing is computed beforehand
      Op::Add(sums[i], x);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
  return kTurns * kSums * Op::kOperations;
}

template <class S>
struct AddF32 {
  static constexpr std::int64_t kOperations = 2 * S::kWidth;
  static typename S::F Operand() { return S::Set(1.0F); }
  [[gnu::always_inline]] static void Add(typename S::F& sum, typename S::F x) {
    sum = S::Fma(x, x, sum);
  }
};

/// `Dots` as in simd_int8.h.
template <class S, class Dots>
struct AddInt8 {
  static constexpr std::int64_t kOperations = 2 * 4 * S::kWidth;
  static typename S::I Operand() {
    constexpr char kBytes[] = {3, 5, 7, 1};
    return S::SetWord(kBytes);
  }
  [[gnu::always_inline]] static void Add(typename S::I& sum, typename S::I x) {
    Dots::Add(sum, x, x);
  }
};

template <class S>
void ReadBytes(const std::byte* data, std::int64_t size_bytes) {
  constexpr std::int64_t kBytes = 4 * S::kWidth;
  const char* at = reinterpret_cast<const char*>(data);
  for (const char* end = at + size_bytes; at < end; at += 256) {
#pragma GCC unroll 4
    for (int line = 0; line < 256; line += 64) __builtin_prefetch(at + 4096 + line, 0, 3);
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < 256; i += kBytes) {
      const typename S::I bytes = S::LoadBytes(at + i);
      asm volatile("" : : "v"(bytes));
    }
  }
}

}  // namespace
}  // namespace millstream::kernels
