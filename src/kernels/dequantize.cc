// SPDX-License-Identifier: Apache-2.0
#include "kernels/dequantize.h"

#include <bit>
#include <cstring>

namespace millstream::kernels {
namespace {

constexpr std::int64_t kBlock = 32;

std::uint16_t LoadHalf(const std::byte* bytes) {
  std::uint16_t half;
  std::memcpy(&half, bytes, sizeof half);
  return half;
}

template <float (*ToF32)(std::uint16_t)>
void WidenHalves(const std::byte* halves, std::int64_t count, float* values) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = ToF32(LoadHalf(halves + 2 * i));
}

void DequantizeQ8_0(const std::byte* block, float* values) {
  const float scale = F16ToF32(LoadHalf(block));
  for (int i = 0; i < kBlock; ++i) {
    values[i] = scale * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
  }
}

void DequantizeQ4_0(const std::byte* block, float* values) {
  const float scale = F16ToF32(LoadHalf(block));
  for (int i = 0; i < kBlock / 2; ++i) {
    const int byte = std::to_integer<int>(block[2 + i]);
    values[i] = scale * static_cast<float>((byte & 15) - 8);
    values[i + kBlock / 2] = scale * static_cast<float>((byte >> 4) - 8);
  }
}

void DequantizeQ4_1(const std::byte* block, float* values) {
  const float scale = F16ToF32(LoadHalf(block));
  const float minimum = F16ToF32(LoadHalf(block + 2));
  for (int i = 0; i < kBlock / 2; ++i) {
    const int byte = std::to_integer<int>(block[4 + i]);
    values[i] = scale * static_cast<float>(byte & 15) + minimum;
    values[i + kBlock / 2] = scale * static_cast<float>(byte >> 4) + minimum;
  }
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
      return kBlock;
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
  for (std::int64_t i = 0; i < count; i += kBlock, blocks += BlockBytes(type)) {
    if (type == WeightType::kQ8_0) DequantizeQ8_0(blocks, values + i);
    if (type == WeightType::kQ4_0) DequantizeQ4_0(blocks, values + i);
    if (type == WeightType::kQ4_1) DequantizeQ4_1(blocks, values + i);
  }
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
