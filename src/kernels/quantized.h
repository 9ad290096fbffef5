// SPDX-License-Identifier: Apache-2.0
// The formats of int8 products, the same for all instruction sets.
//
// A weight is scale * q + minimum, q of 0 to 255 and an f16 scale and minimum for 32 or 16 columns
// of an output: what ggml's block types hold, exactly. Only the K types' scales and minima are
// products that take more bits; these are rounded once, which changes them by 2^-11 at most, far
// less than what the activations lose. A scale whose product with the middle of q exceeds 65,504,
// as those of no sane model do, makes the output infinite. An activation is scale * q, q of -127 to
// 127 and a scale for 128 columns of a row; the sums of its q over 32 and over 16 columns are kept,
// for the minima.
//
// Scales of a row change on the way through a product: a sum in units of one group's scale is
// multiplied by a ratio as the next group begins.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/dequantize.h"
#include "kernels/kernels.h"

namespace millstream::kernels {

constexpr std::int64_t kGroupColumns = 128;  // of activations, with one scale

/// Columns of a panel with one scale and one minimum.
constexpr std::int64_t BlockColumns(PanelKind kind) {
  return kind == PanelKind::kBytes16 ? 16 : 32;
}

// A row: int8 [columns]; f32 sums [columns / 32] and [columns / 16]; f32 ratios [groups], of the
// scale before to that of the group; the last group's f32 scale. Columns are padded.
constexpr std::int64_t SumsOffset(std::int64_t columns, std::int64_t block_columns) {
  return block_columns == 32 ? columns : columns + columns / 32 * 4;
}
constexpr std::int64_t RatiosOffset(std::int64_t columns) {
  return SumsOffset(columns, 16) + columns / 16 * 4;
}
constexpr std::int64_t ScaleOffset(std::int64_t columns) {
  return RatiosOffset(columns) + (columns + kGroupColumns - 1) / kGroupColumns * 4;
}
constexpr std::int64_t QuantizedRowBytes(std::int64_t columns) {
  return (ScaleOffset(PaddedLength(columns)) + 4 + 63) / 64 * 64;
}

// A panel: for each block of columns q, then f16 scales [32] and minima [32]. As bytes, q is
// [8 or 4][32 outputs][4 columns]; as nibbles [4][32][4], a low half of columns 8j + i and a high
// half of columns 8j + 4 + i.
constexpr std::int64_t QuantizedBytes(PanelKind kind) {
  return kPanelRows * BlockColumns(kind) / (kind == PanelKind::kNibbles ? 2 : 1);
}
constexpr std::int64_t PanelBlockBytes(PanelKind kind) {
  return QuantizedBytes(kind) + kPanelRows * 4;
}

/// The narrowest that holds the type.
PanelKind PanelKindOf(WeightType type);

std::int64_t QuantizedPanelBytes(std::int64_t columns, PanelKind kind);
/// Weights without blocks get scales of their own, and minima that make them symmetric.
void PackQuantized(const PanelSource& source, void* panel);

}  // namespace millstream::kernels
