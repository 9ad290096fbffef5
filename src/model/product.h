// SPDX-License-Identifier: Apache-2.0
// Products of activations by packed matrices, on all threads of a team.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/team.h"

namespace millstream {

/// A matrix, packed: outputs x columns.
struct PackedMatrix {
  const std::byte* panels = nullptr;
  const float* bias = nullptr;  // padded, or null
  std::int64_t num_panels = 0;
  std::int64_t columns = 0;  // padded
  std::int64_t panel_bytes = 0;
  kernels::PanelKind kind = kernels::PanelKind::kBytes;
};

// About how many rows one piece of a product has: their activations stay in the second cache while
// the weights pass by. A multiple of kRowStep, of which kernels make whole tiles, and less than
// kMostRows.
constexpr std::int64_t kRowsAtOnce = 48;
constexpr std::int64_t kRowStep = 12;
constexpr std::int64_t kMostRows = kRowsAtOnce + kRowsAtOnce / 2;

/// How many parts a product's rows are computed in.
std::int64_t RowParts(std::int64_t rows);
/// Of each part but the last.
std::int64_t RowsOfPart(std::int64_t rows, std::int64_t parts);

/// Which panel a thread that does piece `piece` of a product will probably need next. Pieces are
/// `width` panels each, and go through the matrix once a part. Matrices lie one after the other in
/// the order of their use.
const std::byte* NextPanel(
    const PackedMatrix& matrix,
    std::int64_t piece,
    std::int64_t width,
    std::int64_t parts,
    const kernels::Team& team
);

/// output[rows][outputs, padded] = (output if accumulate) + bias + activations[rows] . matrix.
void Multiply(
    const kernels::Kernels& kernels,
    const PackedMatrix& matrix,
    const std::byte* activations,
    std::int64_t rows,
    float* output,
    bool accumulate,
    kernels::Team& team
);

}  // namespace millstream
