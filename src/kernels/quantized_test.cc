// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace millstream::kernels {
namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

Floats RandomFloats(std::int64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> values;
  Floats floats(Size(count));
  for (float& value : floats) value = values(random);
  return floats;
}

bool IsSuper(WeightType type) {
  return BlockValues(type) == 256;
}

/// Rows of a type, of random bits with scales of sense. `exact`: those of super-blocks are powers
/// of two, so that no rounding changes their products.
Bytes RandomWeights(WeightType type, std::int64_t rows, std::int64_t columns, bool exact = true) {
  if (type == WeightType::kF32) {
    const Floats values = RandomFloats(rows * columns, 1);
    Bytes bytes(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  std::mt19937 random(1);
  Bytes bytes(Size(rows * columns / BlockValues(type) * BlockBytes(type)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const auto draw = [&](float least) { return least + static_cast<float>(random() % 100) / 1000; };
  for (std::byte* at = bytes.data(); at < bytes.data() + bytes.size(); at += BlockBytes(type)) {
    float scale = draw(0.01F), minimum = -10 * draw(0);
    if (IsSuper(type)) scale /= 64, minimum = draw(0.1F) / 16;
    if (IsSuper(type) && exact) {
      scale = std::ldexp(1.0F, -static_cast<int>(random() % 4) - 6);
      minimum = std::ldexp(1.0F, -static_cast<int>(random() % 4) - 6);
    }
    const std::uint16_t halves[] = {F32ToF16(scale), F32ToF16(minimum)};
    switch (type) {
      case WeightType::kQ4_1:
      case WeightType::kQ5_1:
      case WeightType::kQ4_K:
      case WeightType::kQ5_K:
        std::memcpy(at, halves, 4);
        break;
      default:
        std::memcpy(at + (type == WeightType::kQ6_K ? 208 : 0), halves, 2);
    }
  }
  return bytes;
}

/// What a row of activations stands for.
std::vector<double> Decode(const std::byte* row, std::int64_t columns) {
  const auto at = [&](std::int64_t place) {
    float value;
    std::memcpy(&value, row + place, sizeof value);
    return static_cast<double>(value);
  };
  std::vector<double> values(Size(columns));
  double scale = at(ScaleOffset(columns));
  for (std::int64_t group = (columns - 1) / kGroupColumns; group >= 0; --group) {
    for (std::int64_t k = group * kGroupColumns; k < columns && k < (group + 1) * kGroupColumns;
         ++k) {
      values[Size(k)] = scale * static_cast<std::int8_t>(row[k]);
    }
    scale *= at(RatiosOffset(columns) + group * 4);
  }
  return values;
}

class QuantizedTest : public testing::TestWithParam<std::tuple<Isa, WeightType>> {
 protected:
  void SetUp() override {
    if (!IsSupported(std::get<0>(GetParam()))) GTEST_SKIP() << "not on this machine";
  }

  std::vector<PanelKind> Kinds() const {
    std::vector<PanelKind> kinds;
    for (const PanelKind kind : {PanelKind::kNibbles, PanelKind::kBytes, PanelKind::kBytes16}) {
      if (kind >= PanelKindOf(type_)) kinds.push_back(kind);
    }
    return kinds;
  }
  Bytes Pack(const Bytes& weights, std::int64_t rows, std::int64_t columns, PanelKind kind) const {
    Bytes panel(Size(kernels_.panel_bytes(columns, kind)));
    PanelSource source{{}, rows, columns, kind, nullptr};
    for (std::int64_t n = 0; n < rows; ++n) {
      source.rows[n] = {type_, RowAt(weights, n, columns)};
    }
    kernels_.pack(source, panel.data());
    return panel;
  }
  const std::byte* RowAt(const Bytes& weights, std::int64_t row, std::int64_t columns) const {
    return weights.data() + row * (columns / BlockValues(type_) * BlockBytes(type_));
  }
  Floats Row(const Bytes& weights, std::int64_t row, std::int64_t columns) const {
    Floats values(Size(columns));
    Dequantize(type_, RowAt(weights, row, columns), columns, values.data());
    return values;
  }
  Bytes Round(const Floats& values, std::int64_t rows, std::int64_t columns) const {
    Bytes activations(Size(rows * kernels_.row_bytes(columns)));
    for (std::int64_t r = 0; r < rows; ++r) {
      kernels_.round(
          values.data() + r * columns, columns, activations.data() + r * kernels_.row_bytes(columns)
      );
    }
    return activations;
  }
  Floats Multiply(
      const std::byte* activations,
      std::int64_t rows,
      std::int64_t columns,
      const Bytes& panel,
      PanelKind kind
  ) const {
    const Floats bias(Size(kPanelRows), 0.25F);
    Floats output(Size(rows * kPanelRows), 0.5F);
    kernels_.multiply(
        {.activations = activations,
         .rows = rows,
         .panel = panel.data(),
         .next_panel = panel.data(),
         .columns = PaddedLength(columns),
         .kind = kind,
         .bias = bias.data(),
         .output = output.data(),
         .output_stride = kPanelRows,
         .accumulate = true}
    );
    return output;
  }

  const WeightType type_ = std::get<1>(GetParam());
  const Kernels& kernels_ = GetKernels(
      IsSupported(std::get<0>(GetParam())) ? std::get<0>(GetParam()) : Isa::kReference,
      Precision::kInt8
  );
};

std::string Name(const testing::TestParamInfo<std::tuple<Isa, WeightType>>& info) {
  static constexpr const char* kNames[] = {
      "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"
  };
  const auto& [isa, type] = info.param;
  return std::string(IsaName(isa)) + "_" + kNames[static_cast<int>(type)];
}

INSTANTIATE_TEST_SUITE_P(
    All,
    QuantizedTest,
    testing::Combine(
        testing::Values(Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16),
        testing::Values(
            WeightType::kF32,
            WeightType::kQ8_0,
            WeightType::kQ4_0,
            WeightType::kQ4_1,
            WeightType::kQ5_0,
            WeightType::kQ5_1,
            WeightType::kQ4_K,
            WeightType::kQ5_K,
            WeightType::kQ6_K
        )
    ),
    Name
);

// Against the weights as their file has them; those without blocks are rounded to 1/127 of the
// largest of 32.
TEST_P(QuantizedTest, ProductsAgreeWithSumsInDoublePrecision) {
  constexpr std::int64_t kRows = 13;
  for (std::int64_t columns : {32, 96, 128, 160, 576}) {
    if (IsSuper(type_)) columns = (columns + 255) / 256 * 256;
    for (const std::int64_t outputs : {32, 7}) {
      const Bytes weights = RandomWeights(type_, outputs, columns);
      const Bytes activations = Round(RandomFloats(kRows * columns, 2), kRows, columns);
      for (const PanelKind kind : Kinds()) {
        const Bytes panel = Pack(weights, outputs, columns, kind);
        const Floats output = Multiply(activations.data(), kRows, columns, panel, kind);
        for (std::int64_t n = 0; n < outputs; ++n) {
          const Floats row = Row(weights, n, columns);
          for (std::int64_t r = 0; r < kRows; ++r) {
            const auto values =
                Decode(activations.data() + r * kernels_.row_bytes(columns), columns);
            double sum = 0.75, size = 1;
            for (std::int64_t k = 0; k < columns; ++k) {
              sum += values[Size(k)] * row[Size(k)];
              size += std::abs(values[Size(k)] * row[Size(k)]);
            }
            const double tolerance = type_ == WeightType::kF32 ? 1.6e-2 : 1e-6;
            ASSERT_NEAR(output[Size(r * kPanelRows + n)], sum, tolerance * size) << r << " " << n;
          }
        }
      }
    }
  }
}

TEST_P(QuantizedTest, WeightsOfSuperBlocksAreWithinTheRoundingOfTheirScales) {
  if (!IsSuper(type_)) return;
  constexpr std::int64_t kColumns = 256;
  const Bytes weights = RandomWeights(type_, kPanelRows, kColumns, false);
  Floats ones(Size(kColumns * kColumns));  // each row picks out a column
  for (std::int64_t k = 0; k < kColumns; ++k) ones[Size(k * kColumns + k)] = 1;
  const Bytes activations = Round(ones, kColumns, kColumns);
  for (const PanelKind kind : Kinds()) {
    const Bytes panel = Pack(weights, kPanelRows, kColumns, kind);
    const Floats output = Multiply(activations.data(), kColumns, kColumns, panel, kind);
    for (std::int64_t n = 0; n < kPanelRows; ++n) {
      const Floats row = Row(weights, n, kColumns);
      for (std::int64_t k = 0; k < kColumns; ++k) {
        const WeightBlock block = ReadBlock(type_, RowAt(weights, n, kColumns), k / 32 * 32);
        const float minimum = block.minima[k % 32 / 16];
        const float size = std::abs(row[Size(k)] - minimum) + std::abs(minimum);
        ASSERT_NEAR(output[Size(k * kPanelRows + n)], 0.75F + row[Size(k)], 0x1p-11F * size + 1e-6F)
            << n << " " << k;
      }
    }
  }
}

TEST_P(QuantizedTest, ARowsProductDependsOnNoOtherRowAndNotOnHowNibblesArePacked) {
  constexpr std::int64_t kRows = 25;
  const std::int64_t columns = IsSuper(type_) ? 256 : 160;
  const Bytes weights = RandomWeights(type_, kPanelRows, columns);
  const Bytes activations = Round(RandomFloats(kRows * columns, 2), kRows, columns);
  for (const PanelKind kind : Kinds()) {
    const Bytes panel = Pack(weights, kPanelRows, columns, kind);
    const Floats together = Multiply(activations.data(), kRows, columns, panel, kind);
    if (kind == PanelKind::kNibbles) {
      const Bytes bytes = Pack(weights, kPanelRows, columns, PanelKind::kBytes);
      EXPECT_EQ(Multiply(activations.data(), kRows, columns, bytes, PanelKind::kBytes), together);
    }
    for (std::int64_t rows = 1; rows <= 13; ++rows) {
      for (std::int64_t first = 0; first + rows <= kRows; first += rows) {
        const std::byte* from = activations.data() + first * kernels_.row_bytes(columns);
        const Floats apart = Multiply(from, rows, columns, panel, kind);
        const auto expected = together.begin() + first * kPanelRows;
        ASSERT_TRUE(std::equal(apart.begin(), apart.end(), expected)) << rows << " from " << first;
      }
    }
  }
}

TEST_P(QuantizedTest, ActivationsAreWithinHalfAStepOfTheLargestOf128) {
  for (const std::int64_t columns : {1, 31, 128, 129, 576}) {
    Floats values = RandomFloats(columns, 3);
    if (columns > 200) std::fill(values.begin() + 128, values.begin() + 256, 0.0F);
    values[0] = 50;
    const Bytes row = Round(values, 1, columns);
    const std::int64_t padded = PaddedLength(columns);
    const std::vector<double> decoded = Decode(row.data(), padded);
    for (std::int64_t k = 0; k < padded; ++k) {
      const double value = k < columns ? values[Size(k)] : 0.0F;
      double largest = 0;
      for (std::int64_t i = k / 128 * 128; i < std::min(columns, k / 128 * 128 + 128); ++i) {
        largest = std::max<double>(largest, std::abs(values[Size(i)]));
      }
      ASSERT_NEAR(decoded[Size(k)], value, largest / 127 * 0.5001 + 1e-9) << k;
    }
    for (const std::int64_t width : {32, 16}) {
      for (std::int64_t block = 0; block < padded; block += width) {
        float sum = 0;
        std::memcpy(&sum, row.data() + SumsOffset(padded, width) + block / width * 4, sizeof sum);
        int expected = 0;
        for (std::int64_t k = block; k < block + width; ++k) {
          expected += static_cast<std::int8_t>(row[Size(k)]);
        }
        ASSERT_EQ(sum, static_cast<float>(expected));
      }
    }
  }
}

TEST_P(QuantizedTest, WhatIsNoNumberStaysNone) {
  const std::int64_t columns = IsSuper(type_) ? 512 : 288;
  const Bytes weights = RandomWeights(type_, kPanelRows, columns);
  for (const PanelKind kind : Kinds()) {
    const Bytes panel = Pack(weights, kPanelRows, columns, kind);
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t place : {std::int64_t{0}, std::int64_t{130}, columns - 1}) {
        Floats values(Size(columns), 0.0F);
        values[Size(place)] = bad;
        const Bytes row = Round(values, 1, columns);
        for (const float output : Multiply(row.data(), 1, columns, panel, kind)) {
          ASSERT_TRUE(std::isnan(output)) << bad << " at " << place;
        }
      }
    }
  }
}

TEST_P(QuantizedTest, RmsNormIsThatOfItsDefinitionRounded) {
  for (const std::int64_t columns : {32, 50, 576}) {
    const Floats values = RandomFloats(columns, 5), weight = RandomFloats(columns, 6);
    Bytes row(Size(kernels_.row_bytes(columns)));
    kernels_.rms_norm(values.data(), weight.data(), columns, 1e-5F, row.data());
    double squares = 0;
    for (const float value : values) squares += static_cast<double>(value) * value;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(columns) + 1e-5);
    const std::vector<double> decoded = Decode(row.data(), PaddedLength(columns));
    for (std::int64_t k = 0; k < columns; ++k) {
      ASSERT_NEAR(decoded[Size(k)], values[Size(k)] * scale * weight[Size(k)], 0.05) << k;
    }
  }
}

/// One row by `source`, packed.
Floats Product(const PanelSource& source, const Floats& values) {
  const Kernels& kernels = GetKernels(FastestIsa(), Precision::kInt8);
  Bytes panel(Size(kernels.panel_bytes(source.columns, source.kind)));
  kernels.pack(source, panel.data());
  Bytes row(Size(kernels.row_bytes(source.columns)));
  kernels.round(values.data(), source.columns, row.data());
  Floats output(Size(kPanelRows));
  kernels.multiply(
      {.activations = row.data(),
       .rows = 1,
       .panel = panel.data(),
       .next_panel = panel.data(),
       .columns = PaddedLength(source.columns),
       .kind = source.kind,
       .bias = nullptr,
       .output = output.data(),
       .output_stride = kPanelRows,
       .accumulate = false}
  );
  return output;
}

TEST(PackQuantizedTest, RowsOfSeveralTypesShareAPanel) {
  constexpr std::int64_t kColumns = 256;
  constexpr WeightType kTypes[] = {
      WeightType::kQ4_K, WeightType::kQ6_K, WeightType::kQ8_0, WeightType::kF32, WeightType::kQ4_0
  };
  const Floats values = RandomFloats(kColumns, 2);
  PanelSource mixed{{}, 5, kColumns, PanelKind::kBytes16, nullptr};
  std::vector<Bytes> weights;
  Floats expected(Size(kPanelRows));
  for (std::size_t n = 0; n < std::size(kTypes); ++n) {
    weights.push_back(RandomWeights(kTypes[n], 1, kColumns));
    mixed.rows[n] = {kTypes[n], weights[n].data()};
    PanelSource alone{{mixed.rows[n]}, 1, kColumns, PanelKind::kBytes16, nullptr};
    expected[n] = Product(alone, values)[0];
  }
  EXPECT_EQ(Product(mixed, values), expected);
}

TEST(PackQuantizedTest, AWeightThatIsNoNumberMakesNoneOfItsOutputs) {
  const Floats values = RandomFloats(64, 2);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Floats weights = RandomFloats(2 * 64, 3);
    weights[40] = bad;
    const auto* rows = reinterpret_cast<const std::byte*>(weights.data());
    const Floats output = Product(
        {{{WeightType::kF32, rows}, {WeightType::kF32, rows + 64 * 4}},
         2,
         64,
         PanelKind::kBytes,
         nullptr},
        values
    );
    EXPECT_FALSE(std::isfinite(output[0]));
    EXPECT_TRUE(std::isfinite(output[1]));
  }
}

TEST(F32ToF16Test, EveryHalfComesBackAndWhatIsBetweenGoesToTheNearest) {
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    const auto bits = static_cast<std::uint16_t>(half);
    const float value = F16ToF32(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F16ToF32(F32ToF16(value))));
      continue;
    }
    ASSERT_EQ(F32ToF16(value), bits);
    if (std::isinf(value) || (half & 0x7fffU) == 0x7bffU) continue;
    const float next = F16ToF32(static_cast<std::uint16_t>(bits + 1));
    const float middle = value + (next - value) / 2;
    ASSERT_EQ(F32ToF16(std::nextafter(middle, value)), bits);
    ASSERT_EQ(F32ToF16(std::nextafter(middle, next)), bits + 1);
    ASSERT_EQ(F32ToF16(middle), bits % 2 == 0 ? bits : bits + 1);
  }
  EXPECT_EQ(F32ToF16(65519), 0x7bff);
  EXPECT_EQ(F32ToF16(65520), 0x7c00);
  EXPECT_EQ(F32ToF16(-1e-9F), 0x8000);
}

}  // namespace
}  // namespace millstream::kernels
