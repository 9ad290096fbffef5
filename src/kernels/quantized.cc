// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace millstream::kernels {
namespace {

// Floats, by a scale of their own that is an f16 already.
WeightBlock Quantize(const float* values, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    // What is no number stays.
    if (!(std::abs(values[i]) <= largest)) largest = std::abs(values[i]);
    if (std::isnan(largest)) break;
  }
  const float scale = F16ToF32(F32ToF16(largest / 127));
  WeightBlock block{.scales = {scale, scale}, .middle = 128};
  for (std::int64_t i = 0; i < kBlockColumns; ++i) {
    const bool has_value = i < count && scale > 0 && std::isfinite(scale);
    const float q = has_value ? std::nearbyint(values[i] / scale) : 0.0F;
    block.q[i] = static_cast<std::uint8_t>(128 + std::clamp(q, -127.0F, 127.0F));
  }
  return block;
}

// Columns from `column` on, of which the row has `count`.
WeightBlock BlockOf(const PanelSource& source, std::int64_t row, std::int64_t column) {
  if (row >= source.num_rows) return {};
  const auto& [type, data] = source.rows[row];
  if (BlockValues(type) > 1) return ReadBlock(type, data, column);
  float values[kBlockColumns];
  const std::int64_t count = std::min(kBlockColumns, source.columns - column);
  Dequantize(type, data + column * BlockBytes(type), count, values);
  return Quantize(values, count);
}

void PutHalf(std::uint8_t* halves, std::int64_t place, std::uint16_t half) {
  std::memcpy(halves + 2 * place, &half, sizeof half);
}

// Row `row` of the block of a panel at `to` that holds columns from `first` of `block` on.
void PutRow(
    const WeightBlock& block, std::int64_t first, PanelKind kind, std::int64_t row, std::uint8_t* to
) {
  for (std::int64_t k = 0; k < BlockColumns(kind); ++k) {
    const std::int64_t four = k / 4, within = row * 4 + k % 4;
    const std::uint8_t q = block.q[first + k];
    if (kind == PanelKind::kNibbles) {
      const int shift = four % 2 == 0 ? 0 : 4;
      to[four / 2 * kPanelRows * 4 + within] |= static_cast<std::uint8_t>(q << shift);
    } else {
      to[four * kPanelRows * 4 + within] = q;
    }
  }
  const std::uint16_t scale = F32ToF16(block.scales[first / 16]);
  float minimum = block.minima[first / 16];
  // Of the rounded scale, so that the middle still stands for 0.
  if (block.middle != 0) minimum = static_cast<float>(-block.middle) * F16ToF32(scale);
  PutHalf(to + QuantizedBytes(kind), row, scale);
  PutHalf(to + QuantizedBytes(kind), kPanelRows + row, F32ToF16(minimum));
}

}  // namespace

PanelKind PanelKindOf(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ4_K:
      return PanelKind::kNibbles;
    case WeightType::kQ6_K:
      return PanelKind::kBytes16;
    default:
      return PanelKind::kBytes;
  }
}

std::int64_t QuantizedPanelBytes(std::int64_t columns, PanelKind kind) {
  return PaddedLength(columns) / BlockColumns(kind) * PanelBlockBytes(kind);
}

void PackQuantized(const PanelSource& source, void* panel) {
  const std::int64_t width = BlockColumns(source.kind);
  const std::int64_t step = kBlockColumns / width * PanelBlockBytes(source.kind);
  auto* to = static_cast<std::uint8_t*>(panel);
  for (std::int64_t column = 0; column < source.columns; column += kBlockColumns, to += step) {
    std::memset(to, 0, static_cast<std::size_t>(step));
    for (std::int64_t row = 0; row < kPanelRows; ++row) {
      const WeightBlock block = BlockOf(source, row, column);
      for (std::int64_t first = 0; first < kBlockColumns; first += width) {
        PutRow(block, first, source.kind, row, to + first / width * PanelBlockBytes(source.kind));
      }
    }
  }
}

}  // namespace millstream::kernels
