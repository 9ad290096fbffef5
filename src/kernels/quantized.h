// SPDX-License-Identifier: Apache-2.0
// The formats of int8 products, the same for all instruction sets.
//
// A weight is scale * q + minimum, q of 0 to 255 and a scale and a minimum for 32 columns of an
// output: what ggml's block types hold, exactly. An activation is scale * q, q of -127 to 127 and a
// scale for 128 columns of a row; the sums of its q over 32 columns are kept, for the minima.
//
// Scales of a row change on the way through a product: a sum in units of one group's scale is
// multiplied by a ratio as the next group begins.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dequantize.h"
#include "kernels/kernels.h"

namespace millstream::kernels {

constexpr std::int64_t kBlockColumns = 32;   // of weights, with one scale and one minimum
constexpr std::int64_t kGroupColumns = 128;  // of activations, with one scale

// A row: int8 [columns]; f32 sums [columns / 32]; f32 ratios [groups], of the scale before to that
// of the group; the last group's f32 scale. Columns are padded.
constexpr std::int64_t SumsOffset(std::int64_t columns) {
  return columns;
}
constexpr std::int64_t RatiosOffset(std::int64_t columns) {
  return columns + columns / kBlockColumns * 4;
}
constexpr std::int64_t ScaleOffset(std::int64_t columns) {
  return RatiosOffset(columns) + (columns + kGroupColumns - 1) / kGroupColumns * 4;
}
constexpr std::int64_t QuantizedRowBytes(std::int64_t columns) {
  return (ScaleOffset(PaddedLength(columns)) + 4 + 63) / 64 * 64;
}

// A panel: for each 32 columns q, then f16 scales [32] and minima [32]. As bytes, q is
// [8][32 outputs][4 columns]; as nibbles [4][32][4], a low half of columns 8j + i and a high half
// of columns 8j + 4 + i.
constexpr std::int64_t QuantizedBytes(bool nibbles) {
  return kPanelRows * kBlockColumns / (nibbles ? 2 : 1);
}
constexpr std::int64_t PanelBlockBytes(bool nibbles) {
  return QuantizedBytes(nibbles) + kPanelRows * 4;
}

/// Whether the type's q are of 0 to 15.
bool HasNibbles(WeightType type);

std::int64_t QuantizedPanelBytes(std::int64_t columns, bool nibbles);
/// Weights without blocks get scales of their own, and minima that make them symmetric.
void PackQuantized(const PanelSource& source, void* panel);

}  // namespace millstream::kernels
