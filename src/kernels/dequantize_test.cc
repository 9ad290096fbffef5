// SPDX-License-Identifier: Apache-2.0
#include "kernels/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace millstream::kernels {
namespace {

std::vector<float> Values(WeightType type, const std::vector<int>& block, std::int64_t count) {
  std::vector<std::byte> bytes;
  bytes.reserve(block.size());
  for (const int byte : block) bytes.push_back(static_cast<std::byte>(byte));
  std::vector<float> values(static_cast<std::size_t>(count));
  Dequantize(type, bytes.data(), count, values.data());
  return values;
}

TEST(DequantizeTest, HalvesOfEveryKindAreExact) {
  EXPECT_EQ(F16ToF32(0x3c00), 1.0F);
  EXPECT_EQ(F16ToF32(0xc100), -2.5F);
  EXPECT_EQ(F16ToF32(0x7bff), 65504.0F);
  EXPECT_EQ(F16ToF32(0x0400), 0x1p-14F);
  EXPECT_EQ(F16ToF32(0x0001), 0x1p-24F);
  EXPECT_EQ(F16ToF32(0x83ff), -1023 * 0x1p-24F);
  EXPECT_EQ(F16ToF32(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(F16ToF32(0x7e01)));
  EXPECT_TRUE(std::signbit(F16ToF32(0x8000)));
  EXPECT_EQ(Bf16ToF32(0xbf80), -1.0F);
}

TEST(DequantizeTest, Bf16RoundsToNearestEven) {
  EXPECT_EQ(F32ToBf16(1.0F), 0x3f80);
  EXPECT_EQ(F32ToBf16(1.00390625F), 0x3f80);  // a tie, down to even
  EXPECT_EQ(F32ToBf16(1.01171875F), 0x3f82);  // a tie, up to even
  EXPECT_EQ(F32ToBf16(3.4e38F), 0x7f80);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::nanf("")))));
}

TEST(DequantizeTest, BlocksFollowTheirFormats) {
  std::vector<int> q8 = {0x00, 0x38};  // scale 0.5
  for (int i = 0; i < 32; ++i) q8.push_back(i * 8 - 128);
  std::vector<int> q4 = {0x00, 0x38}, q41 = {0x00, 0x38, 0x00, 0xbc};  // minimum -1
  for (int i = 0; i < 16; ++i) {
    q4.push_back(i | (15 - i) << 4);
    q41.push_back(i | (15 - i) << 4);
  }
  const auto q8_values = Values(WeightType::kQ8_0, q8, 32);
  const auto q4_values = Values(WeightType::kQ4_0, q4, 32);
  const auto q41_values = Values(WeightType::kQ4_1, q41, 32);
  for (int i = 0; i < 32; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const int nibble = i < 16 ? i : 31 - i;
    EXPECT_EQ(q8_values[at], 0.5F * static_cast<float>(i * 8 - 128));
    EXPECT_EQ(q4_values[at], 0.5F * static_cast<float>(nibble - 8));
    EXPECT_EQ(q41_values[at], 0.5F * static_cast<float>(nibble) - 1);
  }
  EXPECT_EQ(Values(WeightType::kF16, {0x00, 0x3c, 0x00, 0xbc}, 2), (std::vector<float>{1, -1}));
  EXPECT_EQ(Values(WeightType::kBf16, {0x80, 0x3f}, 1), (std::vector<float>{1}));
  EXPECT_EQ(Values(WeightType::kF32, {0, 0, 0x80, 0x3f}, 1), (std::vector<float>{1}));
}

std::string FromHex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST(DequantizeTest, BlocksHaveTheValuesThatTheGgufPackageReads) {
  const std::map<std::string, WeightType> types = {
      {"Q8_0", WeightType::kQ8_0},
      {"Q4_0", WeightType::kQ4_0},
      {"Q4_1", WeightType::kQ4_1},
      {"Q5_0", WeightType::kQ5_0},
      {"Q5_1", WeightType::kQ5_1},
      {"Q4_K", WeightType::kQ4_K},
      {"Q5_K", WeightType::kQ5_K},
      {"Q6_K", WeightType::kQ6_K}
  };
  std::ifstream file(MS_TEST_DATA "/weight-blocks.tsv");
  std::set<WeightType> seen;
  for (std::string name, block, expected; file >> name >> block >> expected;) {
    const WeightType type = types.at(name);
    seen.insert(type);
    const std::string bytes = FromHex(block);
    ASSERT_EQ(static_cast<std::int64_t>(bytes.size()), BlockBytes(type)) << name;
    std::vector<float> values(static_cast<std::size_t>(BlockValues(type)));
    std::vector<float> package(values.size());
    ASSERT_EQ(expected.size(), values.size() * 8) << name;
    std::memcpy(package.data(), FromHex(expected).data(), package.size() * sizeof(float));
    Dequantize(
        type,
        reinterpret_cast<const std::byte*>(bytes.data()),
        static_cast<std::int64_t>(values.size()),
        values.data()
    );
    EXPECT_EQ(values, package) << name;
  }
  EXPECT_EQ(seen.size(), types.size());
}

}  // namespace
}  // namespace millstream::kernels
