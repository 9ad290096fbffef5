// SPDX-License-Identifier: Apache-2.0
// Products of int8 for simd.h: what quantized.h describes. `Dot` adds, for each 32-bit lane, the
// four products of unsigned bytes by signed ones.

#pragma once

#include "kernels/quantized.h"
#include "kernels/simd_attention.h"

namespace millstream::kernels {
namespace {

/// Writes a row of activations, a group of columns after the other.
template <class S>
class RowQuantizer {
 public:
  RowQuantizer(void* row, std::int64_t columns)
      : values_(static_cast<std::int8_t*>(row)),
        sums_(reinterpret_cast<float*>(values_ + SumsOffset(columns, 32))),
        half_sums_(reinterpret_cast<float*>(values_ + SumsOffset(columns, 16))),
        ratios_(reinterpret_cast<float*>(values_ + RatiosOffset(columns))),
        last_(reinterpret_cast<float*>(values_ + ScaleOffset(columns))) {
    *last_ = 1;
  }

  /// Of 128 columns, or of those that are left; a multiple of 32.
  void Add(const float* values, std::int64_t count) {
    typename S::F most = S::Zero();
    typename S::F nan = S::Zero();
    for (std::int64_t i = 0; i < count; i += S::kWidth) {
      const typename S::F x = S::Load(values + i);
      most = S::Max(most, S::Max(x, S::Sub(S::Zero(), x)));
      nan = S::KeepNan(nan, x);
    }
    const float largest = S::Largest(most);
    float scale = *last_;  // of zeros any will do
    float inverse = 0;
    if (S::AnyNan(nan) || largest > 1e30F) {
      scale = __builtin_nanf("");
    } else if (largest > 1e-30F) {
      scale = largest / 127;
      inverse = 127 / largest;
    }
    *ratios_++ = *last_ / scale;
    *last_ = scale;
    for (std::int64_t i = 0; i < count; i += 32) {
      const float first = Quantize(values + i, inverse);
      const float second = Quantize(values + i + 16, inverse);
      *half_sums_++ = first;
      *half_sums_++ = second;
      *sums_++ = first + second;
    }
  }

 private:
  /// Of 16 columns; their sum.
  [[gnu::always_inline]] float Quantize(const float* values, float inverse) {
    typename S::F sum = S::Zero();
    for (std::int64_t k = 0; k < 16; k += S::kWidth, values_ += S::kWidth) {
      const typename S::F q = S::RoundToInteger(S::Mul(S::Load(values + k), S::Set(inverse)));
      S::StoreBytes(values_, q);
      sum = S::Add(sum, q);
    }
    return S::Sum(sum);
  }

  std::int8_t* values_;
  float* sums_;       // of 32
  float* half_sums_;  // of 16
  float* ratios_;
  float* const last_;
};

template <class S>
void RoundInt8(const float* values, std::int64_t length, void* activations) {
  RowQuantizer<S> row(activations, PaddedLength(length));
  std::int64_t i = 0;
  for (; i + kGroupColumns <= length; i += kGroupColumns) row.Add(values + i, kGroupColumns);
  if (i == length) return;
  alignas(64) float last[kGroupColumns] = {};
  for (std::int64_t k = 0; i + k < length; ++k) last[k] = values[i + k];
  row.Add(last, PaddedLength(length) - i);
}

template <class S>
void RmsNormInt8(
    const float* values, const float* weight, std::int64_t length, float epsilon, void* activations
) {
  typename S::F sums = S::Zero();
  const std::int64_t whole = length / S::kWidth * S::kWidth;
  for (std::int64_t i = 0; i < whole; i += S::kWidth) {
    const typename S::F x = S::Load(values + i);
    sums = S::Fma(x, x, sums);
  }
  float sum = S::Sum(sums);
  for (std::int64_t i = whole; i < length; ++i) sum += values[i] * values[i];
  const float factor = 1.0F / __builtin_sqrtf(sum / static_cast<float>(length) + epsilon);
  const typename S::F factors = S::Set(factor);
  RowQuantizer<S> row(activations, PaddedLength(length));
  for (std::int64_t i = 0; i < length; i += kGroupColumns) {
    alignas(64) float group[kGroupColumns];
    const std::int64_t count = Smaller(length - i, kGroupColumns);
    std::int64_t k = 0;
    for (; k + S::kWidth <= count; k += S::kWidth) {
      const typename S::F x = S::Mul(S::Load(values + i + k), factors);
      S::Store(group + k, S::Mul(x, S::Load(weight + i + k)));
    }
    for (; k < count; ++k) group[k] = values[i + k] * factor * weight[i + k];
    for (; k < PaddedLength(count); ++k) group[k] = 0;
    row.Add(group, PaddedLength(count));
  }
}

std::int64_t RowBytesInt8(std::int64_t columns) {
  return QuantizedRowBytes(columns);
}

/// Two vectors of outputs, from vector `first` of the panel, for kRows rows.
template <class S, class Dot, PanelKind kKind>
struct Int8Tile {
  static constexpr int kMaxRows = S::kInt8Rows;
  using I = typename S::I;

  // Words of four columns of kRows rows.
  template <int kRows>
  [[gnu::always_inline]] static void AddDots(
      const char* columns, std::int64_t row_bytes, I w0, I w1, I (&dots)[kRows][2]
  ) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const I x = S::SetWord(columns + r * row_bytes);
      Dot::Add(dots[r][0], w0, x);
      Dot::Add(dots[r][1], w1, x);
    }
  }

  template <int kRows>
  [[gnu::noinline]] static void Multiply(const PanelProduct& p, std::int64_t row, int first) {
    constexpr std::int64_t kColumns = BlockColumns(kKind);
    constexpr std::int64_t kFours = kPanelRows * 4;  // bytes
    constexpr std::int64_t kVector = S::kWidth * 4;
    typename S::F sums[kRows][2];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = S::Zero();
    const std::int64_t row_bytes = QuantizedRowBytes(p.columns);
    const char* a = static_cast<const char*>(p.activations) + row * row_bytes;
    const char* ratios = a + RatiosOffset(p.columns);
    const char* block_sums = a + SumsOffset(p.columns, kColumns);
    const char* block = static_cast<const char*>(p.panel);
    const char* end = block + p.columns / kColumns * PanelBlockBytes(kKind);
    const char* next = static_cast<const char*>(p.next_panel) + (end - block) * row / p.rows;
    const std::int64_t next_step = PanelBlockBytes(kKind) * kRows / p.rows;
    for (std::int64_t b = 0; block < end; ++b, block += PanelBlockBytes(kKind)) {
      if (b % (kGroupColumns / kColumns) == 0 && b > 0) {
        ratios += 4;
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const typename S::F ratio = S::Set(FloatAt(ratios + r * row_bytes));
          sums[r][0] = S::Mul(sums[r][0], ratio);
          sums[r][1] = S::Mul(sums[r][1], ratio);
        }
      }
      I dots[kRows][2];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = S::ZeroWords();
      const char* weights = block + first * kVector;
#pragma GCC unroll 4
      for (int pair = 0; pair < kColumns / 8; ++pair, a += 8) {
        __builtin_prefetch(weights + 4096, 0, 3);
        __builtin_prefetch(weights + 4096 + 64, 0, 3);
        if constexpr (kKind == PanelKind::kNibbles) {
          const I n0 = S::LoadBytes(weights), n1 = S::LoadBytes(weights + kVector);
          AddDots<kRows>(a, row_bytes, S::LowNibbles(n0), S::LowNibbles(n1), dots);
          AddDots<kRows>(a + 4, row_bytes, S::HighNibbles(n0), S::HighNibbles(n1), dots);
          weights += kFours;
        } else {
          AddDots<kRows>(
              a, row_bytes, S::LoadBytes(weights), S::LoadBytes(weights + kVector), dots
          );
          weights += kFours;
          AddDots<kRows>(
              a + 4, row_bytes, S::LoadBytes(weights), S::LoadBytes(weights + kVector), dots
          );
          weights += kFours;
        }
      }
      for (std::int64_t line = 0; line < next_step; line += 64) {
        __builtin_prefetch(next + line, 0, 2);
      }
      next += next_step;
      const char* halves = block + QuantizedBytes(kKind) + first * S::kWidth * 2;
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const typename S::F scale = S::LoadHalves(halves + v * S::kWidth * 2);
        const typename S::F minimum = S::LoadHalves(halves + kPanelRows * 2 + v * S::kWidth * 2);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const typename S::F sum = S::Set(FloatAt(block_sums + r * row_bytes));
          sums[r][v] = S::Fma(S::ToFloat(dots[r][v]), scale, sums[r][v]);
          sums[r][v] = S::Fma(sum, minimum, sums[r][v]);
        }
      }
      block_sums += 4;
    }
    Scale<kRows>(p, row, first, sums);
    WriteSums<S, kRows, 2>(p, row, first, sums);
  }

  /// By the last group's scale, and adds the bias.
  template <int kRows>
  [[gnu::always_inline]] static void Scale(
      const PanelProduct& p, std::int64_t row, int first, typename S::F (&sums)[kRows][2]
  ) {
    const std::int64_t row_bytes = QuantizedRowBytes(p.columns);
    const char* last =
        static_cast<const char*>(p.activations) + row * row_bytes + ScaleOffset(p.columns);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename S::F scale = S::Set(FloatAt(last + r * row_bytes));
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const typename S::F bias =
            p.bias != nullptr ? S::Load(p.bias + (first + v) * S::kWidth) : S::Zero();
        sums[r][v] = S::Fma(sums[r][v], scale, bias);
      }
    }
  }

  [[gnu::always_inline]] static float FloatAt(const char* at) {
    float value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
  }
};

template <class S, class Dot>
void MultiplyInt8(const PanelProduct& p) {
  switch (p.kind) {
    case PanelKind::kNibbles:
      return Multiply<S, Int8Tile<S, Dot, PanelKind::kNibbles>>(p);
    case PanelKind::kBytes:
      return Multiply<S, Int8Tile<S, Dot, PanelKind::kBytes>>(p);
    case PanelKind::kBytes16:
      return Multiply<S, Int8Tile<S, Dot, PanelKind::kBytes16>>(p);
  }
}

template <class S, class Dot, class Page>
constexpr Kernels MakeInt8Table(Isa isa) {
  return {
      .isa = isa,
      .precision = Precision::kInt8,
      .row_bytes = RowBytesInt8,
      .panel_bytes = QuantizedPanelBytes,
      .pack = PackQuantized,
      .multiply = MultiplyInt8<S, Dot>,
      .round = RoundInt8<S>,
      .rms_norm = RmsNormInt8<S>,
      .swiglu = Swiglu<S>,
      .geglu = Geglu<S>,
      .page_bytes = PageBytes<Page>,
      .store = Page::Store,
      .attend = Attend<S, Page>,
      .exponentials = Exponentials<S>,
      .arg_max = ArgMax<S>,
  };
}

}  // namespace
}  // namespace millstream::kernels
