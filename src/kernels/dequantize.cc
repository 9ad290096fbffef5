// SPDX-License-Identifier: Apache-2.0
#include "kernels/dequantize.h"

#include <bit>
#include <cstring>

namespace millstream::kernels {
namespace {

constexpr std::int64_t kSuperBlock = 256;  // of the K types

std::uint16_t LoadHalf(const std::byte* bytes) {
  std::uint16_t half;
  std::memcpy(&half, bytes, sizeof half);
  return half;
}

template <float (*ToF32)(std::uint16_t)>
void WidenHalves(const std::byte* halves, std::int64_t count, float* values) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = ToF32(LoadHalf(halves + 2 * i));
}

float HalfAt(const std::byte* bytes) {
  return F16ToF32(LoadHalf(bytes));
}

int ByteAt(const std::byte* bytes, std::int64_t i) {
  return std::to_integer<int>(bytes[i]);
}

void SetScale(WeightBlock& block, float scale, float minimum, int middle) {
  block.scales[0] = block.scales[1] = scale;
  block.minima[0] = block.minima[1] = minimum;
  block.middle = middle;
}

void ReadBytes(const std::byte* bytes, WeightBlock& block) {
  for (int i = 0; i < kBlockColumns; ++i) {
    block.q[i] = static_cast<std::uint8_t>(128 + static_cast<std::int8_t>(bytes[i]));
  }
}

// Of 16 bytes, the low nibbles, then the high ones.
void ReadNibbles(const std::byte* bytes, WeightBlock& block) {
  for (int i = 0; i < kBlockColumns / 2; ++i) {
    block.q[i] = static_cast<std::uint8_t>(ByteAt(bytes, i) & 15);
    block.q[i + kBlockColumns / 2] = static_cast<std::uint8_t>(ByteAt(bytes, i) >> 4);
  }
}

// Fifth bits, one after the other.
void AddHighBits(const std::byte* bits, WeightBlock& block) {
  for (int i = 0; i < kBlockColumns; ++i) {
    block.q[i] |= static_cast<std::uint8_t>(((ByteAt(bits, i / 8) >> (i % 8)) & 1) << 4);
  }
}

// Q4_K and Q5_K: f16 d and dmin, then 8 scales and 8 minima of 6 bits in 12 bytes, those of the
// last four in the other bytes' high bits.
void ReadSuperScales(const std::byte* super, std::int64_t part, WeightBlock& block) {
  const std::byte* bits = super + 4;
  int scale = ByteAt(bits, part) & 63;
  int minimum = ByteAt(bits, part + 4) & 63;
  if (part >= 4) {
    scale = (ByteAt(bits, part + 4) & 15) | ((ByteAt(bits, part - 4) >> 6) << 4);
    minimum = (ByteAt(bits, part + 4) >> 4) | ((ByteAt(bits, part) >> 6) << 4);
  }
  SetScale(
      block,
      HalfAt(super) * static_cast<float>(scale),
      -(HalfAt(super + 2) * static_cast<float>(minimum)),
      0
  );
}

// Of 32 bytes, which two parts share.
void ReadSuperNibbles(const std::byte* nibbles, std::int64_t part, WeightBlock& block) {
  const std::byte* bytes = nibbles + part / 2 * kBlockColumns;
  const std::int64_t shift = part % 2 * 4;
  for (int i = 0; i < kBlockColumns; ++i) {
    block.q[i] = static_cast<std::uint8_t>((ByteAt(bytes, i) >> shift) & 15);
  }
}

// Bit `part` of each of 32 bytes.
void AddSuperHighBits(const std::byte* bits, std::int64_t part, WeightBlock& block) {
  for (int i = 0; i < kBlockColumns; ++i) {
    block.q[i] |= static_cast<std::uint8_t>(((ByteAt(bits, i) >> part) & 1) << 4);
  }
}

// 128 bytes of low nibbles, 64 of two high bits, 16 scales, d. In each half of the super-block
// parts 0 and 2 share bytes of low nibbles, as do 1 and 3; all four share those of high bits.
void ReadQ6_K(const std::byte* super, std::int64_t part, WeightBlock& block) {
  const std::int64_t half = part / 4, within = part % 4;
  const std::byte* low = super + (half * 2 + within % 2) * kBlockColumns;
  const std::byte* high = super + 128 + half * kBlockColumns;
  for (int i = 0; i < kBlockColumns; ++i) {
    const int nibble = (ByteAt(low, i) >> (within / 2 * 4)) & 15;
    const int bits = (ByteAt(high, i) >> (within * 2)) & 3;
    block.q[i] = static_cast<std::uint8_t>(nibble | (bits << 4));
  }
  for (int i = 0; i < 2; ++i) {
    const auto scale = static_cast<std::int8_t>(super[192 + 2 * part + i]);
    block.scales[i] = HalfAt(super + 208) * static_cast<float>(scale);
  }
  block.middle = 32;
}

}  // namespace

std::int64_t BlockValues(WeightType type) {
  switch (type) {
    case WeightType::kF32:
    case WeightType::kF16:
    case WeightType::kBf16:
      return 1;
    case WeightType::kQ8_0:
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ5_0:
    case WeightType::kQ5_1:
      return kBlockColumns;
    case WeightType::kQ4_K:
    case WeightType::kQ5_K:
    case WeightType::kQ6_K:
      return kSuperBlock;
  }
  return 1;
}

std::int64_t BlockBytes(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return 4;
    case WeightType::kF16:
    case WeightType::kBf16:
      return 2;
    case WeightType::kQ8_0:
      return 2 + 32;
    case WeightType::kQ4_0:
      return 2 + 16;
    case WeightType::kQ4_1:
      return 4 + 16;
    case WeightType::kQ5_0:
      return 2 + 4 + 16;
    case WeightType::kQ5_1:
      return 4 + 4 + 16;
    case WeightType::kQ4_K:
      return 4 + 12 + 128;
    case WeightType::kQ5_K:
      return 4 + 12 + 32 + 128;
    case WeightType::kQ6_K:
      return 128 + 64 + 16 + 2;
  }
  return 4;
}

void Dequantize(WeightType type, const std::byte* blocks, std::int64_t count, float* values) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(values, blocks, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case WeightType::kF16:
      return WidenHalves<F16ToF32>(blocks, count, values);
    case WeightType::kBf16:
      return WidenHalves<Bf16ToF32>(blocks, count, values);
    default:
      break;
  }
  for (std::int64_t column = 0; column < count; column += kBlockColumns) {
    const WeightBlock block = ReadBlock(type, blocks, column);
    for (int first = 0; first < kBlockColumns; first += 16) {
      const float scale = block.scales[first / 16], minimum = block.minima[first / 16];
      for (int i = first; i < first + 16; ++i) {
        values[column + i] = scale * static_cast<float>(block.q[i] - block.middle) + minimum;
      }
    }
  }
}

WeightBlock ReadBlock(WeightType type, const std::byte* row, std::int64_t column) {
  const std::int64_t values = BlockValues(type);
  const std::byte* at = row + column / values * BlockBytes(type);
  const std::int64_t part = column % values / kBlockColumns;
  WeightBlock block;
  switch (type) {
    case WeightType::kF32:
    case WeightType::kF16:
    case WeightType::kBf16:
      return block;
    case WeightType::kQ8_0:
      SetScale(block, HalfAt(at), 0, 128);
      ReadBytes(at + 2, block);
      return block;
    case WeightType::kQ4_0:
      SetScale(block, HalfAt(at), 0, 8);
      ReadNibbles(at + 2, block);
      return block;
    case WeightType::kQ4_1:
      SetScale(block, HalfAt(at), HalfAt(at + 2), 0);
      ReadNibbles(at + 4, block);
      return block;
    case WeightType::kQ5_0:
      SetScale(block, HalfAt(at), 0, 16);
      ReadNibbles(at + 6, block);
      AddHighBits(at + 2, block);
      return block;
    case WeightType::kQ5_1:
      SetScale(block, HalfAt(at), HalfAt(at + 2), 0);
      ReadNibbles(at + 8, block);
      AddHighBits(at + 4, block);
      return block;
    case WeightType::kQ4_K:
      ReadSuperScales(at, part, block);
      ReadSuperNibbles(at + 16, part, block);
      return block;
    case WeightType::kQ5_K:
      ReadSuperScales(at, part, block);
      ReadSuperNibbles(at + 48, part, block);
      AddSuperHighBits(at + 16, part, block);
      return block;
    case WeightType::kQ6_K:
      ReadQ6_K(at, part, block);
      return block;
  }
  return block;
}

float F16ToF32(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7fffU;
  if (magnitude >= 0x7c00U) {  // infinity or NaN
    return std::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13));
  }
  // Exponents are biased by 15 and 127; the product is exact for denormal halves too.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

std::uint16_t F32ToF16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t half = 0x7e00U;                  // NaN
  if (magnitude <= 0x7f800000U) half = 0x7c00U;  // infinity, and what rounds to it
  if (magnitude < 0x477ff000U) {
    // Normal halves have 13 bits less.
    half = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  }
  if (magnitude < 0x38800000U) {
    // Denormal ones are multiples of 2^-24, as which the addition rounds.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

float Bf16ToF32(std::uint16_t half) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

std::uint16_t F32ToBf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace millstream::kernels
