// SPDX-License-Identifier: Apache-2.0
#include "model/product.h"

#include <algorithm>

namespace millstream {

std::int64_t RowParts(std::int64_t rows) {
  return std::max<std::int64_t>(1, (rows + kRowsAtOnce / 2) / kRowsAtOnce);
}

std::int64_t RowsOfPart(std::int64_t rows, std::int64_t parts) {
  return (rows + parts * kRowStep - 1) / (parts * kRowStep) * kRowStep;
}

const std::byte* NextPanel(
    const PackedMatrix& matrix,
    std::int64_t piece,
    std::int64_t width,
    std::int64_t parts,
    const kernels::Team& team
) {
  const std::int64_t pieces = matrix.num_panels / width;
  std::int64_t next = piece + team.size();
  next = next < pieces * parts ? next % pieces : next - pieces * (parts - 1);
  return matrix.panels + next * width * matrix.panel_bytes;
}

void Multiply(
    const kernels::Kernels& kernels,
    const PackedMatrix& matrix,
    const std::byte* activations,
    std::int64_t rows,
    float* output,
    bool accumulate,
    kernels::Team& team
) {
  const std::int64_t panels = matrix.num_panels;
  const std::int64_t parts = RowParts(rows);
  const std::int64_t part_rows = RowsOfPart(rows, parts);
  // Few rows make a panel a short piece of work: take several.
  const std::int64_t grain = rows >= 16 ? 1 : team.Grain(panels, 6);
  team.For(panels * parts, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t panel = i % panels;
      const std::int64_t first = i / panels * part_rows;
      const std::int64_t count = std::min(part_rows, rows - first);
      if (count <= 0) continue;
      kernels.multiply(
          {.activations = activations + first * kernels.row_bytes(matrix.columns),
           .rows = count,
           .panel = matrix.panels + panel * matrix.panel_bytes,
           .next_panel = NextPanel(matrix, i, 1, parts, team),
           .columns = matrix.columns,
           .kind = matrix.kind,
           .bias = matrix.bias != nullptr ? matrix.bias + panel * kernels::kPanelRows : nullptr,
           .output = output + first * panels * kernels::kPanelRows + panel * kernels::kPanelRows,
           .output_stride = panels * kernels::kPanelRows,
           .accumulate = accumulate}
      );
    }
  });
}

}  // namespace millstream
