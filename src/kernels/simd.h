// SPDX-License-Identifier: Apache-2.0
// The vector kernels, written once over a vector type S and compiled by one .cc file for each
// instruction set.
//
// S names the type and its operations: F (kWidth floats), I (as many 32-bit integers). Everything
// here is in an anonymous namespace and calls no inline function of the standard library: the
// linker must never pick code compiled for AVX-512 for use elsewhere.
//
// Loops over register arrays carry an unroll pragma each: with one missing, GCC 12 keeps the array
// in memory.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

std::int64_t Smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

/// e^x within 2 ulp for x <= 88, and 0 from -200 down, as S::ScaleByPower makes it. A NaN stays
/// one: of two values, of which one is a NaN, Max and Min are the second.
template <class S>
[[gnu::always_inline]] inline typename S::F Exp(typename S::F x) {
  x = S::Max(S::Set(-200.0F), S::Min(S::Set(88.0F), x));
  const typename S::F power = S::RoundToInteger(S::Mul(x, S::Set(1.44269504F)));
  // ln 2 in two parts, the first exact in few bits.
  typename S::F f = S::Fma(power, S::Set(-0.693359375F), x);
  f = S::Fma(power, S::Set(2.12194440e-4F), f);
  typename S::F p = S::Set(1.9875691500e-4F);
  p = S::Fma(p, f, S::Set(1.3981999507e-3F));
  p = S::Fma(p, f, S::Set(8.3334519073e-3F));
  p = S::Fma(p, f, S::Set(4.1665795894e-2F));
  p = S::Fma(p, f, S::Set(1.6666665459e-1F));
  p = S::Fma(p, f, S::Set(5.0000001201e-1F));
  p = S::Fma(S::Mul(p, f), f, S::Add(f, S::Set(1.0F)));
  return S::ScaleByPower(p, power);
}

// How activations are stored: as f32, as f32 rounded to bf16, or as bf16.
template <class S>
struct AsF32 {
  using Value = float;
  static constexpr Precision kPrecision = Precision::kF32;
  [[gnu::always_inline]] static void Store(float* to, typename S::F x) { S::Store(to, x); }
};
template <class S>
struct AsRounded {
  using Value = float;
  static constexpr Precision kPrecision = Precision::kBf16;
  [[gnu::always_inline]] static void Store(float* to, typename S::F x) {
    S::Store(to, S::HighHalves(S::RoundToBf16(x)));
  }
};
template <class S>
struct AsBf16 {
  using Value = std::uint16_t;
  static constexpr Precision kPrecision = Precision::kBf16;
  [[gnu::always_inline]] static void Store(std::uint16_t* to, typename S::F x) {
    S::StoreHighHalves(to, S::RoundToBf16(x));
  }
};

/// Stores the last `count` < kWidth values and zeros up to the padded length.
template <class S, class As>
void StoreTail(const float* values, std::int64_t count, typename As::Value* to, std::int64_t room) {
  alignas(64) float padded[32] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = values[i];
  alignas(64) typename As::Value stored[32];
  for (std::int64_t i = 0; i < 32; i += S::kWidth) As::Store(stored + i, S::Load(padded + i));
  for (std::int64_t i = 0; i < room; ++i) to[i] = stored[i];
}

template <class S, class As>
void Round(const float* values, std::int64_t length, void* activations) {
  auto* to = static_cast<typename As::Value*>(activations);
  const std::int64_t whole = length / 32 * 32;
  for (std::int64_t i = 0; i < whole; i += S::kWidth) As::Store(to + i, S::Load(values + i));
  if (whole < length) StoreTail<S, As>(values + whole, length - whole, to + whole, 32);
}

template <class S, class As>
void RmsNorm(
    const float* values, const float* weight, std::int64_t length, float epsilon, void* activations
) {
  auto* to = static_cast<typename As::Value*>(activations);
  const std::int64_t whole = length / 32 * 32;
  alignas(64) float tail[32] = {};
  for (std::int64_t i = whole; i < length; ++i) tail[i - whole] = values[i];
  typename S::F sums = S::Zero();
  for (std::int64_t i = 0; i < whole; i += S::kWidth) {
    const typename S::F x = S::Load(values + i);
    sums = S::Fma(x, x, sums);
  }
  for (std::int64_t i = 0; i < 32; i += S::kWidth) {
    const typename S::F x = S::Load(tail + i);
    sums = S::Fma(x, x, sums);
  }
  const float mean = S::Sum(sums) / static_cast<float>(length);
  const float factor = 1.0F / __builtin_sqrtf(mean + epsilon);
  const typename S::F scale = S::Set(factor);
  for (std::int64_t i = 0; i < whole; i += S::kWidth) {
    As::Store(to + i, S::Mul(S::Mul(S::Load(values + i), scale), S::Load(weight + i)));
  }
  if (whole == length) return;
  for (std::int64_t i = whole; i < length; ++i) tail[i - whole] = values[i] * factor * weight[i];
  StoreTail<S, As>(tail, length - whole, to + whole, 32);
}

template <class As>
std::int64_t RowBytes(std::int64_t columns) {
  return PaddedLength(columns) * static_cast<std::int64_t>(sizeof(typename As::Value));
}

template <class S>
void Swiglu(const float* gate, const float* up, std::int64_t length, float* outputs) {
  for (std::int64_t i = 0; i < length; i += S::kWidth) {
    const typename S::F g = S::Load(gate + i);
    const typename S::F denominator = S::Add(S::Set(1.0F), Exp<S>(S::Sub(S::Zero(), g)));
    S::Store(outputs + i, S::Mul(S::Div(g, denominator), S::Load(up + i)));
  }
}

/// 0.5 x (1 + tanh(y)) is x / (1 + e^-2y).
template <class S>
void Geglu(const float* gate, const float* up, std::int64_t length, float* outputs) {
  for (std::int64_t i = 0; i < length; i += S::kWidth) {
    const typename S::F g = S::Load(gate + i);
    const typename S::F bent = S::Fma(S::Mul(S::Set(kGeluCubic), S::Mul(g, g)), g, g);
    const typename S::F e = Exp<S>(S::Mul(S::Set(-2 * kGeluSlope), bent));
    S::Store(outputs + i, S::Mul(S::Div(g, S::Add(S::Set(1.0F), e)), S::Load(up + i)));
  }
}

template <class S>
void Exponentials(
    const float* values, std::int64_t length, float shift, float scale, float* outputs
) {
  const typename S::F shifts = S::Set(shift);
  const typename S::F scales = S::Set(scale);
  std::int64_t i = 0;
  for (; i + S::kWidth <= length; i += S::kWidth) {
    S::Store(outputs + i, Exp<S>(S::Mul(S::Sub(S::Load(values + i), shifts), scales)));
  }
  alignas(64) float tail[S::kWidth] = {};
  for (std::int64_t t = i; t < length; ++t) tail[t - i] = values[t];
  S::Store(tail, Exp<S>(S::Mul(S::Sub(S::Load(tail), shifts), scales)));
  for (std::int64_t t = i; t < length; ++t) outputs[t] = tail[t - i];
}

template <class S>
std::int64_t ArgMax(const float* values, std::int64_t length) {
  float largest = values[0];
  bool has_nan = false;
  std::int64_t i = 0;
  if (length >= S::kWidth) {
    typename S::F most = S::Load(values);
    typename S::F nan = S::Zero();  // a NaN once there was one: x - x is 0 but for NaN and infinity
    for (; i + S::kWidth <= length; i += S::kWidth) {
      const typename S::F x = S::Load(values + i);
      most = S::Max(most, x);
      nan = S::KeepNan(nan, x);
    }
    largest = S::Largest(most);
    has_nan = S::AnyNan(nan);
  }
  for (; i < length; ++i) {
    has_nan = has_nan || values[i] != values[i];
    if (values[i] > largest) largest = values[i];
  }
  if (has_nan) return -1;
  for (i = 0; i < length; ++i) {
    if (values[i] == largest) return i;
  }
  return -1;
}

// Panels. In f32: [columns][32] floats. In bf16: [columns / 2][32] words, each the pair of an even
// column (low half) and the odd one after it.
template <class S>
struct PanelF32 {
  static constexpr std::int64_t kBytes = kPanelRows * 4;  // a column
  static void Put(void* panel, std::int64_t row, std::int64_t column, float value) {
    static_cast<float*>(panel)[column * kPanelRows + row] = value;
  }
  /// Columns k (even) and k + 1, vector `v` of their 32 rows.
  [[gnu::always_inline]] static void Load(
      const void* panel, std::int64_t k, int v, typename S::F* even, typename S::F* odd
  ) {
    const float* at = static_cast<const float*>(panel) + k * kPanelRows + v * S::kWidth;
    *even = S::Load(at);
    *odd = S::Load(at + kPanelRows);
  }
};

inline std::uint32_t Bf16Bits(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return (bits >> 16) | 0x40U;
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

template <class S>
struct PanelBf16 {
  static constexpr std::int64_t kBytes = kPanelRows * 2;
  static void Put(void* panel, std::int64_t row, std::int64_t column, float value) {
    auto* halves = static_cast<std::uint16_t*>(panel);
    halves[(column / 2 * kPanelRows + row) * 2 + column % 2] =
        static_cast<std::uint16_t>(Bf16Bits(value));
  }
  [[gnu::always_inline]] static void Load(
      const void* panel, std::int64_t k, int v, typename S::F* even, typename S::F* odd
  ) {
    const auto* at = static_cast<const std::uint32_t*>(panel) + k / 2 * kPanelRows + v * S::kWidth;
    const typename S::I pairs = S::LoadWords(at);
    *even = S::LowHalves(pairs);
    *odd = S::HighHalves(pairs);
  }
};

/// Fetches, two columns at a time, what stands some way ahead in the panel into the first cache,
/// and a tile's share of the next panel into the second. The hardware's own prefetching halts at
/// each page.
template <class Panel>
class Prefetcher {
 public:
  Prefetcher(const PanelProduct& p, std::int64_t row, std::int64_t rows)
      : ahead_(static_cast<const char*>(p.panel) + 64 * Panel::kBytes),
        next_(static_cast<const char*>(p.next_panel) + p.columns * Panel::kBytes * row / p.rows),
        next_step_(2 * Panel::kBytes * rows / p.rows) {}

  [[gnu::always_inline]] void Step() {
#pragma GCC unroll 4
    for (std::int64_t line = 0; line < 2 * Panel::kBytes; line += 64) {
      __builtin_prefetch(ahead_ + line, 0, 3);
      __builtin_prefetch(next_ + line, 0, 2);
    }
    ahead_ += 2 * Panel::kBytes;
    next_ += next_step_;
  }

 private:
  const char* ahead_;
  const char* next_;
  const std::int64_t next_step_;
};

template <class Panel>
std::int64_t PanelBytes(std::int64_t columns, PanelKind /*kind*/) {
  return PaddedLength(columns) * Panel::kBytes;
}

template <class Panel>
void Pack(const PanelSource& source, void* panel) {
  const std::int64_t padded = PaddedLength(source.columns);
  DequantizeRows(source);
  for (std::int64_t k = 0; k < padded; ++k) {
    for (std::int64_t r = 0; r < kPanelRows; ++r) {
      const bool inside = r < source.num_rows && k < source.columns;
      Panel::Put(panel, r, k, inside ? source.scratch[r * source.columns + k] : 0.0F);
    }
  }
}

/// Writes sums[r][v] as the output of a product says.
template <class S, int kRows, int kVectors>
[[gnu::always_inline]] inline void WriteSums(
    const PanelProduct& p, std::int64_t row, int first, typename S::F (&sums)[kRows][kVectors]
) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* output = p.output + (row + r) * p.output_stride + (first + v) * S::kWidth;
      S::Store(output, p.accumulate ? S::Add(S::Load(output), sums[r][v]) : sums[r][v]);
    }
  }
}

template <class S, int kRows, int kVectors>
[[gnu::always_inline]] inline void StartSums(
    const float* bias, int first, typename S::F (&sums)[kRows][kVectors]
) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const typename S::F start =
        bias != nullptr ? S::Load(bias + (first + v) * S::kWidth) : S::Zero();
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r][v] = start;
  }
}

/// Two vectors of outputs, from vector `first` of the panel, for kRows rows.
template <class S, class Panel>
struct FmaTile {
  static constexpr int kMaxRows = S::kTileRows;

  template <int kRows>
  [[gnu::noinline]] static void Multiply(const PanelProduct& p, std::int64_t row, int first) {
    typename S::F sums[kRows][2];
    StartSums<S, kRows, 2>(p.bias, first, sums);
    const std::int64_t stride = p.columns;
    const float* a = static_cast<const float*>(p.activations) + row * stride;
    Prefetcher<Panel> prefetcher(p, row, kRows);
    for (std::int64_t k = 0; k < p.columns; k += 2, a += 2) {
      typename S::F even[2];
      typename S::F odd[2];
      Panel::Load(p.panel, k, first, &even[0], &odd[0]);
      Panel::Load(p.panel, k, first + 1, &even[1], &odd[1]);
      prefetcher.Step();
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const typename S::F x = S::Set(a[r * stride]);
        sums[r][0] = S::Fma(x, even[0], sums[r][0]);
        sums[r][1] = S::Fma(x, even[1], sums[r][1]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const typename S::F x = S::Set(a[r * stride + 1]);
        sums[r][0] = S::Fma(x, odd[0], sums[r][0]);
        sums[r][1] = S::Fma(x, odd[1], sums[r][1]);
      }
    }
    WriteSums<S, kRows, 2>(p, row, first, sums);
  }
};

/// Calls the instance of Tile::Multiply for `rows` rows.
template <class Tile, int kRows>
void MultiplyRows(const PanelProduct& p, std::int64_t row, std::int64_t rows, int first) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return Tile::template Multiply<kRows>(p, row, first);
    MultiplyRows<Tile, kRows - 1>(p, row, rows, first);
  }
}

/// The whole panel, in tiles of about equal numbers of rows.
template <class S, class Tile>
void Multiply(const PanelProduct& p) {
  const std::int64_t tiles = (p.rows + Tile::kMaxRows - 1) / Tile::kMaxRows;
  for (std::int64_t t = 0, row = 0; t < tiles; ++t) {
    const std::int64_t rows = (p.rows - row + tiles - t - 1) / (tiles - t);
    for (int first = 0; first < kPanelRows / S::kWidth; first += 2) {
      MultiplyRows<Tile, Tile::kMaxRows>(p, row, rows, first);
    }
    row += rows;
  }
}

}  // namespace
}  // namespace millstream::kernels
