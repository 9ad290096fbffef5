// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace millstream::kernels {
namespace {

struct Block {
  std::uint8_t q[kBlockColumns] = {};
  std::uint16_t scale = 0, minimum = 0;  // f16
};

std::uint16_t LoadHalf(const std::byte* bytes) {
  std::uint16_t half;
  std::memcpy(&half, bytes, sizeof half);
  return half;
}

// So that `middle` stands for 0.
void SetSymmetric(Block& block, std::uint16_t scale, float middle) {
  block.scale = scale;
  block.minimum = F32ToF16(-middle * F16ToF32(scale));
}

void ReadNibbles(const std::byte* bytes, Block& block) {
  for (int i = 0; i < kBlockColumns / 2; ++i) {
    block.q[i] = std::to_integer<std::uint8_t>(bytes[i] & std::byte{15});
    block.q[i + kBlockColumns / 2] = std::to_integer<std::uint8_t>(bytes[i] >> 4);
  }
}

void Quantize(const float* values, std::int64_t count, Block& block) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  SetSymmetric(block, F32ToF16(largest / 127), 128);
  const float scale = F16ToF32(block.scale);
  for (std::int64_t i = 0; i < count; ++i) {
    const float q = scale > 0 ? std::nearbyint(values[i] / scale) : 0.0F;
    block.q[i] = static_cast<std::uint8_t>(128 + std::clamp(q, -127.0F, 127.0F));
  }
  for (std::int64_t i = count; i < kBlockColumns; ++i) block.q[i] = 128;
}

// Columns from `column` on, of which the row has `count`.
Block ReadBlock(const PanelSource& source, std::int64_t row, std::int64_t column) {
  Block block;
  if (row >= source.num_rows) return block;
  const std::int64_t count = std::min(kBlockColumns, source.columns - column);
  const WeightType type = source.rows[row].type;
  const std::byte* at = source.rows[row].data + column / BlockValues(type) * BlockBytes(type);
  switch (type) {
    case WeightType::kQ8_0:
      SetSymmetric(block, LoadHalf(at), 128);
      for (int i = 0; i < kBlockColumns; ++i) {
        block.q[i] = static_cast<std::uint8_t>(128 + static_cast<std::int8_t>(at[2 + i]));
      }
      return block;
    case WeightType::kQ4_0:
      SetSymmetric(block, LoadHalf(at), 8);
      ReadNibbles(at + 2, block);
      return block;
    case WeightType::kQ4_1:
      block.scale = LoadHalf(at);
      block.minimum = LoadHalf(at + 2);
      ReadNibbles(at + 4, block);
      return block;
    case WeightType::kF32:
    case WeightType::kF16:
    case WeightType::kBf16: {
      float values[kBlockColumns];
      Dequantize(type, at, count, values);
      Quantize(values, count, block);
      return block;
    }
  }
  return block;
}

}  // namespace

bool HasNibbles(WeightType type) {
  return type == WeightType::kQ4_0 || type == WeightType::kQ4_1;
}

std::int64_t QuantizedPanelBytes(std::int64_t columns, bool nibbles) {
  return PaddedLength(columns) / kBlockColumns * PanelBlockBytes(nibbles);
}

void PackQuantized(const PanelSource& source, void* panel) {
  const std::int64_t halves = QuantizedBytes(source.nibbles);
  auto* to = static_cast<std::uint8_t*>(panel);
  for (std::int64_t column = 0; column < source.columns; column += kBlockColumns) {
    std::memset(to, 0, static_cast<std::size_t>(halves));
    for (std::int64_t row = 0; row < kPanelRows; ++row) {
      const Block block = ReadBlock(source, row, column);
      for (std::int64_t k = 0; k < kBlockColumns; ++k) {
        const std::int64_t four = k / 4, within = row * 4 + k % 4;
        if (source.nibbles) {
          const int shift = four % 2 == 0 ? 0 : 4;
          to[four / 2 * kPanelRows * 4 + within] |= static_cast<std::uint8_t>(block.q[k] << shift);
        } else {
          to[four * kPanelRows * 4 + within] = block.q[k];
        }
      }
      std::memcpy(to + halves + 2 * row, &block.scale, 2);
      std::memcpy(to + halves + 2 * (kPanelRows + row), &block.minimum, 2);
    }
    to += PanelBlockBytes(source.nibbles);
  }
}

}  // namespace millstream::kernels
