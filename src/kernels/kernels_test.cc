// SPDX-License-Identifier: Apache-2.0
#include "kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/dequantize.h"

namespace millstream::kernels {
namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

Floats RandomFloats(std::int64_t count, std::uint32_t seed, float range = 1) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> values(-range, range);
  Floats floats(Size(count));
  for (float& value : floats) value = values(random);
  return floats;
}

float Rounded(Precision precision, float value) {
  return precision == Precision::kBf16 ? Bf16ToF32(F32ToBf16(value)) : value;
}

/// Activations as f32, whatever the table's format.
Floats Read(const Kernels& kernels, const Bytes& activations) {
  Floats floats;
  const bool is_f32 = kernels.row_bytes(1) == kernels.row_bytes(32) && kernels.row_bytes(1) == 128;
  for (std::size_t i = 0; i < activations.size(); i += is_f32 ? 4 : 2) {
    std::uint16_t half;
    float value;
    std::memcpy(&half, activations.data() + i, sizeof half);
    if (is_f32) std::memcpy(&value, activations.data() + i, sizeof value);
    floats.push_back(is_f32 ? value : Bf16ToF32(half));
  }
  return floats;
}

struct Table {
  Isa isa;
  Precision precision;
};

std::string TableName(const testing::TestParamInfo<Table>& info) {
  const std::string precision = info.param.precision == Precision::kBf16 ? "_in_bf16" : "_in_f32";
  return std::string(IsaName(info.param.isa)) + precision;
}

std::vector<Table> SupportedTables() {
  std::vector<Table> tables;
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (!IsSupported(isa)) continue;
    tables.push_back({isa, Precision::kF32});
    tables.push_back({isa, Precision::kBf16});
  }
  return tables;
}

class KernelsTest : public testing::TestWithParam<Table> {
 protected:
  float Round(float value) const { return Rounded(kernels_.precision, value); }
  Bytes Activations(const Floats& values, std::int64_t rows) const {
    const auto length = static_cast<std::int64_t>(values.size()) / rows;
    const std::int64_t row_bytes = kernels_.row_bytes(length);
    Bytes activations(Size(rows * row_bytes));
    for (std::int64_t r = 0; r < rows; ++r) {
      kernels_.round(values.data() + r * length, length, activations.data() + r * row_bytes);
    }
    return activations;
  }

  const Kernels& kernels_ = GetKernels(GetParam().isa, GetParam().precision);
  // How far apart two orders of one sum may come, relative to its terms' size; bf16 outputs round
  // once more.
  const float ulp_ = GetParam().precision == Precision::kBf16 ? 0x1p-8F : 4e-6F;
};

INSTANTIATE_TEST_SUITE_P(All, KernelsTest, testing::ValuesIn(SupportedTables()), TableName);

struct ProductCase {
  std::int64_t rows, columns, outputs;
  bool bias, accumulate;
};

class Product {
 public:
  Product(const Kernels& kernels, const ProductCase& shape)
      : kernels_(kernels),
        shape_(shape),
        weights(RandomFloats(shape.outputs * shape.columns, 1)),
        bias(RandomFloats(kPanelRows, 3)),
        panel_(Size(kernels.panel_bytes(shape.columns, PanelKind::kBytes))) {
    Floats scratch(Size(kPanelRows * shape.columns));
    PanelSource source{{}, shape.outputs, shape.columns, PanelKind::kBytes, scratch.data()};
    for (std::int64_t n = 0; n < shape.outputs; ++n) {
      source.rows[n] = {
          WeightType::kF32, reinterpret_cast<const std::byte*>(weights.data() + n * shape.columns)
      };
    }
    kernels.pack(source, panel_.data());
  }

  Floats Run(const Bytes& activations, std::int64_t first, std::int64_t rows, float start) const {
    Floats output(Size(rows * kPanelRows), start);
    kernels_.multiply(
        {.activations = activations.data() + first * kernels_.row_bytes(shape_.columns),
         .rows = rows,
         .panel = panel_.data(),
         .next_panel = panel_.data(),
         .columns = PaddedLength(shape_.columns),
         .kind = PanelKind::kBytes,
         .bias = shape_.bias ? bias.data() : nullptr,
         .output = output.data(),
         .output_stride = kPanelRows,
         .accumulate = shape_.accumulate}
    );
    return output;
  }

 private:
  const Kernels& kernels_;
  const ProductCase shape_;

 public:
  const Floats weights;
  const Floats bias;

 private:
  Bytes panel_;
};

TEST_P(KernelsTest, ProductsAgreeWithSumsInDoublePrecision) {
  for (const ProductCase shape :
       {ProductCase{1, 32, 32, false, false},
        ProductCase{5, 33, 7, true, false},
        ProductCase{13, 96, 32, true, true},
        ProductCase{25, 100, 31, false, true},
        ProductCase{12, 577, 32, false, false}}) {
    const Product product(kernels_, shape);
    const Floats values = RandomFloats(shape.rows * shape.columns, 2);
    const Floats output = product.Run(Activations(values, shape.rows), 0, shape.rows, 0.5F);
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      for (std::int64_t n = 0; n < shape.outputs; ++n) {
        double sum = (shape.accumulate ? 0.5 : 0) + (shape.bias ? product.bias[Size(n)] : 0.0F);
        for (std::int64_t k = 0; k < shape.columns; ++k) {
          sum += static_cast<double>(Round(values[Size(r * shape.columns + k)])) *
                 Round(product.weights[Size(n * shape.columns + k)]);
        }
        ASSERT_NEAR(output[Size(r * kPanelRows + n)], sum, 1e-4) << r << " " << n;
      }
    }
  }
}

TEST_P(KernelsTest, ARowsProductDependsOnNoOtherRow) {
  const ProductCase shape{40, 160, 32, true, false};
  const Product product(kernels_, shape);
  const Bytes activations = Activations(RandomFloats(shape.rows * shape.columns, 2), shape.rows);
  const Floats together = product.Run(activations, 0, shape.rows, 0);
  for (std::int64_t rows = 1; rows <= 14; ++rows) {
    for (std::int64_t first = 0; first + rows <= shape.rows; first += rows) {
      const Floats apart = product.Run(activations, first, rows, 0);
      ASSERT_EQ(
          0,
          std::memcmp(
              apart.data(), together.data() + first * kPanelRows, apart.size() * sizeof(float)
          )
      );
    }
  }
}

TEST_P(KernelsTest, RoundingIsExactAndPadsWithZeros) {
  for (const std::int64_t length : {1, 31, 32, 50, 64}) {
    Floats values = RandomFloats(length, 4);
    values[0] = -1.00390625F;  // half way between two bf16: goes to the even one
    const Floats rounded = Read(kernels_, Activations(values, 1));
    for (std::int64_t i = 0; i < PaddedLength(length); ++i) {
      ASSERT_EQ(rounded[Size(i)], i < length ? Round(values[Size(i)]) : 0.0F) << i;
    }
  }
  const Floats nan = Read(kernels_, Activations({std::nanf("")}, 1));
  EXPECT_TRUE(std::isnan(nan[0]));
}

TEST_P(KernelsTest, RmsNormAgreesWithItsDefinition) {
  for (const std::int64_t length : {32, 50, 576}) {
    const Floats values = RandomFloats(length, 5, 3);
    const Floats weight = RandomFloats(length, 6, 2);
    Bytes activations(Size(kernels_.row_bytes(length)), std::byte{1});
    kernels_.rms_norm(values.data(), weight.data(), length, 1e-5F, activations.data());
    const Floats normed = Read(kernels_, activations);
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value) * value;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(length) + 1e-5);
    for (std::int64_t i = 0; i < PaddedLength(length); ++i) {
      const double expected = i < length ? values[Size(i)] * scale * weight[Size(i)] : 0.0;
      ASSERT_NEAR(normed[Size(i)], expected, ulp_ * std::abs(expected)) << i;
    }
  }
}

TEST_P(KernelsTest, SwigluAgreesWithItsDefinition) {
  Floats gate = RandomFloats(64, 7, 10);
  gate[0] = 100;
  gate[1] = -100;
  gate[2] = 0;
  const Floats up = RandomFloats(64, 8, 2);
  Floats outputs(64);
  kernels_.swiglu(gate.data(), up.data(), 64, outputs.data());
  for (std::size_t i = 0; i < 64; ++i) {
    const double g = gate[i];
    const double expected = g / (1 + std::exp(-g)) * up[i];
    ASSERT_NEAR(outputs[i], expected, 4e-6 * std::abs(expected) + 1e-30) << i;
  }
}

TEST_P(KernelsTest, GegluAgreesWithItsDefinition) {
  Floats gate = RandomFloats(64, 7, 10);
  gate[0] = 100;
  gate[1] = -100;
  gate[2] = 0;
  gate[3] = 1e20F;
  const Floats up = RandomFloats(64, 8, 2);
  Floats outputs(64);
  kernels_.geglu(gate.data(), up.data(), 64, outputs.data());
  for (std::size_t i = 0; i < 64; ++i) {
    const double g = gate[i];
    const double inner = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
    const double expected = 0.5 * g * (1 + std::tanh(inner)) * up[i];
    // Where gelu comes close to 0, 1 + tanh has lost most of its digits.
    ASSERT_NEAR(outputs[i], expected, 4e-6 * std::abs(expected) + 2e-6) << i;
  }
}

TEST_P(KernelsTest, ExponentialsAgreeWithTheLibrary) {
  const Floats values = RandomFloats(77, 9, 30);
  Floats outputs(77);
  kernels_.exponentials(values.data(), 77, 30, 1.25F, outputs.data());
  for (std::size_t i = 0; i < 77; ++i) {
    const double expected = std::exp((static_cast<double>(values[i]) - 30) * 1.25);
    ASSERT_NEAR(outputs[i], expected, 1e-5 * expected + 1e-37) << i;
  }
}

TEST_P(KernelsTest, ArgMaxFindsTheFirstOfTheLargestAndAnyNan) {
  for (const std::int64_t length : {1, 15, 16, 100}) {
    Floats values = RandomFloats(length, 10);
    values[Size(length / 2)] = 5;
    values[Size(length - 1)] = 5;
    EXPECT_EQ(kernels_.arg_max(values.data(), length), length / 2);
    for (const std::int64_t place : {std::int64_t{0}, length - 1}) {
      Floats bad = values;
      bad[Size(place)] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(kernels_.arg_max(bad.data(), length), -1);
    }
  }
  const Floats masked = {-INFINITY, -INFINITY, -3, -INFINITY};
  EXPECT_EQ(kernels_.arg_max(masked.data(), 4), 2);
}

/// A paged cache of one head with its keys and values as they were before rounding.
class Cache {
 public:
  Cache(const Kernels& kernels, std::int64_t head_dim, std::int64_t positions)
      : keys(RandomFloats(positions * head_dim, 11, 2)),
        values(RandomFloats(positions * head_dim, 12, 2)),
        page_bytes_(kernels.page_bytes(head_dim)) {
    const std::int64_t num_pages = (positions + kPageTokens - 1) / kPageTokens;
    // What was never stored must not be seen.
    memory_.assign(Size(num_pages * page_bytes_), std::byte{0xff});
    for (std::int64_t p = num_pages; p > 0; --p) pages_.push_back(static_cast<std::int32_t>(p - 1));
    for (std::int64_t t = 0; t < positions; ++t) {
      Store(kernels, head_dim, t, keys.data() + t * head_dim, values.data() + t * head_dim);
    }
  }

  void Store(
      const Kernels& kernels,
      std::int64_t head_dim,
      std::int64_t position,
      const float* key,
      const float* value
  ) {
    std::byte* page = memory_.data() + pages_[Size(position / kPageTokens)] * page_bytes_;
    kernels.store(key, value, head_dim, position % kPageTokens, page);
  }

  const Floats keys, values;
  const std::byte* memory() const { return memory_.data(); }
  std::int64_t page_bytes() const { return page_bytes_; }
  const std::int32_t* pages() const { return pages_.data(); }

 private:
  const std::int64_t page_bytes_;
  Bytes memory_;
  std::vector<std::int32_t> pages_;
};

struct Heads {
  std::int64_t head_dim, group;
};

struct Seen {
  std::int64_t shared, window;
};

/// Attention of tokens at `positions`, [token][group][head_dim]. `pages`: of each token.
Floats Attend(
    const Kernels& kernels,
    const Cache& cache,
    Heads heads,
    const Floats& queries,
    const std::vector<std::int64_t>& positions,
    Seen seen
) {
  const std::int64_t stride = heads.head_dim * heads.group;
  Floats output(positions.size() * Size(stride));
  std::vector<AttentionToken> tokens;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    tokens.push_back(
        {.queries = queries.data() + positions[i] * stride,
         .output = output.data() + i * Size(stride),
         .position = positions[i],
         .pages = cache.pages()}
    );
  }
  kernels.attend(
      {.tokens = tokens.data(),
       .num_tokens = std::ssize(tokens),
       .group = heads.group,
       .head_dim = heads.head_dim,
       .cache = cache.memory(),
       .page_stride = cache.page_bytes(),
       .shared = seen.shared,
       .window = seen.window}
  );
  return output;
}

void ExpectAttention(
    const Kernels& kernels,
    const Cache& cache,
    Heads heads,
    const Floats& queries,
    std::int64_t position,
    std::int64_t window,
    const float* row
) {
  // Weights are rounded too, of values up to 2.
  const double tolerance = kernels.precision == Precision::kF32 ? 5e-6 : 4e-3;
  for (std::int64_t g = 0; g < heads.group; ++g) {
    const float* query = queries.data() + (position * heads.group + g) * heads.head_dim;
    std::vector<double> weights, sums(Size(heads.head_dim), 0.0);
    double total = 0;
    for (std::int64_t t = window > 0 ? std::max<std::int64_t>(0, position + 1 - window) : 0;
         t <= position;
         ++t) {
      double score = 0;
      for (std::int64_t d = 0; d < heads.head_dim; ++d) {
        score += static_cast<double>(Rounded(kernels.precision, query[d])) *
                 Rounded(kernels.precision, cache.keys[Size(t * heads.head_dim + d)]);
      }
      const double weight = std::exp(score);
      total += weight;
      for (std::int64_t d = 0; d < heads.head_dim; ++d) {
        sums[Size(d)] +=
            weight * Rounded(kernels.precision, cache.values[Size(t * heads.head_dim + d)]);
      }
    }
    for (std::int64_t d = 0; d < heads.head_dim; ++d) {
      ASSERT_NEAR(row[g * heads.head_dim + d], sums[Size(d)] / total, tolerance)
          << "position " << position << " head " << g << " dimension " << d;
    }
  }
}

TEST_P(KernelsTest, AttentionAgreesWithItsDefinition) {
  for (const Heads heads : {Heads{64, 3}, Heads{32, 1}, Heads{80, 4}, Heads{8, 7}, Heads{128, 2}}) {
    constexpr std::int64_t kPositions = 300;
    const Cache cache(kernels_, heads.head_dim, kPositions);
    const Floats queries = RandomFloats(kPositions * heads.head_dim * heads.group, 13, 0.5F);
    for (const std::int64_t window : {0, 1, 40, 128, 200}) {
      for (const std::int64_t position : {0, 15, 16, 100, 127, 128, 255, 256, 298, 299}) {
        const Floats row = Attend(kernels_, cache, heads, queries, {position}, {0, window});
        ExpectAttention(kernels_, cache, heads, queries, position, window, row.data());
      }
    }
  }
}

TEST_P(KernelsTest, AttentionToAKeyThatIsNoNumberIsNone) {
  const Heads heads{64, 3};
  Cache cache(kernels_, heads.head_dim, 40);
  const Floats queries = RandomFloats(40 * heads.head_dim * heads.group, 13, 0.5F);
  const Floats bad(Size(heads.head_dim), std::numeric_limits<float>::quiet_NaN());
  cache.Store(kernels_, heads.head_dim, 20, bad.data(), cache.values.data());
  for (const std::int64_t position : {19, 20, 39}) {
    for (const float x : Attend(kernels_, cache, heads, queries, {position}, {0, 0})) {
      ASSERT_EQ(std::isnan(x), position >= 20) << position;
    }
  }
}

std::vector<std::int64_t> Range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> range(Size(end - begin));
  std::iota(range.begin(), range.end(), begin);
  return range;
}

TEST_P(KernelsTest, AttentionOfATokenDependsOnNoOtherToken) {
  const Heads heads{64, 3};
  constexpr std::int64_t kPositions = 300;
  const Cache cache(kernels_, heads.head_dim, kPositions);
  const Floats queries = RandomFloats(kPositions * heads.head_dim * heads.group, 13, 0.5F);
  const std::size_t row = Size(heads.head_dim * heads.group);
  const auto expect = [&](const std::vector<std::int64_t>& positions, Seen seen) {
    const Floats together = Attend(kernels_, cache, heads, queries, positions, seen);
    for (std::size_t i = 0; i < positions.size(); ++i) {
      const Floats alone =
          Attend(kernels_, cache, heads, queries, {positions[i]}, {0, seen.window});
      ASSERT_EQ(0, std::memcmp(alone.data(), together.data() + i * row, row * sizeof(float)))
          << positions.size() << " tokens, position " << positions[i];
    }
  };
  for (const std::int64_t window : {0, 50, 130}) {
    for (const std::int64_t tokens : {1, 3, 16, 50, 150}) {
      for (std::int64_t begin = 0; begin + tokens <= kPositions; begin += tokens) {
        expect(Range(begin, begin + tokens), {begin + tokens, window});
      }
    }
    expect({299, 256, 270, 257, 256, 299, 280}, {256, window});
    expect({299, 128, 270, 150, 256, 299, 280}, {128, window});
    expect({299, 0, 12, 150, 256, 128, 127, 3}, {0, window});
  }
}

TEST(RotateTest, TurnsPairsOfHalvesByTheirAngles) {
  Floats heads = {1, 0, 0, 1, 2, 3, 4, 5};  // two heads of four
  const Floats cosines = {0, 1}, sines = {1, 0};
  Rotate(heads.data(), 2, 4, cosines.data(), sines.data(), 2);
  EXPECT_EQ(heads, (Floats{0, 0, 2, 2, -8, 6, 4, 10}));
}

TEST(NormInPlaceTest, AgreesWithItsDefinitionInEachRow) {
  for (const std::int64_t length : {6, 16, 50, 256}) {
    const Floats values = RandomFloats(3 * length, 5, 3);
    const Floats weight = RandomFloats(length, 6, 2);
    Floats rows = values;
    NormInPlace(rows.data(), 3, length, weight.data(), 1e-5F);
    for (std::int64_t r = 0; r < 3; ++r) {
      const float* row = values.data() + r * length;
      double sum = 0;
      for (std::int64_t i = 0; i < length; ++i) sum += static_cast<double>(row[i]) * row[i];
      const double scale = 1 / std::sqrt(sum / static_cast<double>(length) + 1e-5);
      for (std::int64_t i = 0; i < length; ++i) {
        const double expected = row[i] * scale * weight[Size(i)];
        ASSERT_NEAR(rows[Size(r * length + i)], expected, 1e-6 * std::abs(expected)) << i;
      }
    }
  }
}

TEST(IsaTest, NamesAreUniqueAndFound) {
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    EXPECT_EQ(IsaByName(IsaName(isa)), isa);
  }
  EXPECT_EQ(IsaByName("sse9"), std::nullopt);
  EXPECT_TRUE(IsSupported(FastestIsa()));
}

}  // namespace
}  // namespace millstream::kernels
