// SPDX-License-Identifier: Apache-2.0
#include "model/tensor_table.h"

#include <gtest/gtest.h>

#include <bit>

#include "base/checked.h"
#include "base/random.h"

namespace millstream {
namespace {

__extension__ using Wide = unsigned __int128;

/// Numbers of every magnitude, and those beside powers of two.
std::uint64_t Interesting(std::uint64_t draw) {
  const std::uint64_t bits = RandomBits({7, 7}, draw);
  const std::uint64_t shifted = bits >> (RandomBits({8, 8}, draw) % 64);
  switch (RandomBits({9, 9}, draw) % 4) {
    case 0:
      return shifted;
    case 1:
      return std::bit_floor(shifted);
    case 2:
      return std::bit_floor(shifted) - 1;
    default:
      return UINT64_MAX - (shifted >> 8);
  }
}

TEST(CheckedSizeTest, AgreesWith128Bits) {
  std::uint64_t draw = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t a = Interesting(draw++);
    const std::uint64_t b = Interesting(draw++);
    const std::uint64_t c = Interesting(draw++);
    const std::uint64_t alignment = std::uint64_t{1} << (Interesting(draw++) % 13);
    // Each step is judged, as one that passes 64 bits must poison the rest.
    const Wide product = Wide{a} * b;
    const Wide sum = product + c;
    const Wide aligned = (sum + (alignment - 1)) / alignment * alignment;
    const bool fits =
        product <= UINT64_MAX && sum <= UINT64_MAX && sum + (alignment - 1) <= UINT64_MAX;
    const auto value = (CheckedSize(a) * b + c).AlignedUp(alignment).value();
    ASSERT_EQ(value.has_value(), fits) << a << " " << b << " " << c << " " << alignment;
    if (fits) {
      ASSERT_EQ(*value, static_cast<std::uint64_t>(aligned));
    }
  }
}

TEST(TensorBytesTest, AgreesWith128Bits) {
  struct Layout {
    TensorType type;
    unsigned values, bytes;
  };
  constexpr Layout kLayouts[] = {
      {TensorType::kF32, 1, 4},
      {TensorType::kF16, 1, 2},
      {TensorType::kBF16, 1, 2},
      {TensorType::kQ8_0, 32, 34},
      {TensorType::kQ4_0, 32, 18},
      {TensorType::kQ4_1, 32, 20},
      {TensorType::kQ5_0, 32, 22},
      {TensorType::kQ5_1, 32, 24},
      {TensorType::kQ4_K, 256, 144},
      {TensorType::kQ5_K, 256, 176},
      {TensorType::kQ6_K, 256, 210}
  };
  std::uint64_t draw = 0;
  for (int i = 0; i < 20'000; ++i) {
    for (const Layout& layout : kLayouts) {
      std::vector<std::int64_t> shape;
      shape.reserve(3);
      for (int d = 0; d < 1 + i % 3; ++d) {
        shape.push_back(static_cast<std::int64_t>(Interesting(draw++) >> (i % 48 + 1)));
      }
      if (i % 2 == 0) shape.back() = shape.back() / 256 * 256;
      Wide values = 1;
      bool possible = shape.back() % layout.values == 0;
      for (const std::int64_t n : shape) {
        if (n < 1 || !possible) {
          possible = false;
          break;
        }
        values *= static_cast<std::uint64_t>(n);
        possible = values <= UINT64_MAX;
      }
      const Wide bytes = values / layout.values * layout.bytes;
      possible = possible && bytes <= UINT64_MAX;
      const auto size = TensorBytes(layout.type, shape);
      ASSERT_EQ(size.has_value(), possible) << ShapeText(shape) << TensorTypeName(layout.type);
      if (possible) {
        ASSERT_EQ(*size, static_cast<std::uint64_t>(bytes));
      }
    }
  }
}

TEST(QuotedTest, KeepsTerminalsSafe) {
  EXPECT_EQ(Quoted("a\x1B[2J"), "\"a?[2J\"");
  EXPECT_EQ(Quoted(std::string(100, 'x')).size(), 85U);
}

}  // namespace
}  // namespace millstream
