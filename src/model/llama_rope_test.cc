// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/llama.h"

namespace millstream {
namespace {

/// Llama 3.1's numbers.
ModelConfig Llama31() {
  ModelConfig config;
  config.context = 131072;
  config.head_dim = 128;
  config.rope_theta = 500000;
  return config;
}

double Unscaled(const ModelConfig& config, int pair) {
  return std::pow(
      static_cast<double>(config.rope_theta), -2.0 * pair / static_cast<double>(config.head_dim)
  );
}

TEST(RopeTest, FrequenciesFallByPowersOfTheta) {
  const ModelConfig config = Llama31();
  const RopeFrequencies rope = MakeRopeFrequencies(config, {});
  ASSERT_EQ(rope.turns.size(), 64U);
  EXPECT_EQ(rope.magnitude, 1);
  for (int pair = 0; pair < 64; ++pair) {
    EXPECT_DOUBLE_EQ(rope.turns[static_cast<std::size_t>(pair)], Unscaled(config, pair));
  }
}

TEST(RopeTest, LinearScalingAndFactorsDivide) {
  ModelConfig config = Llama31();
  config.rope_scaling.kind = RopeScaling::Kind::kLinear;
  config.rope_scaling.factor = 4;
  std::vector<float> factors(64, 2);
  const RopeFrequencies rope = MakeRopeFrequencies(config, factors);
  EXPECT_DOUBLE_EQ(rope.turns[0], 1.0 / 8);
  EXPECT_DOUBLE_EQ(rope.turns[10], Unscaled(config, 10) / 8);
}

TEST(RopeTest, Llama3ScalesLongWavesAloneAndSmoothly) {
  ModelConfig config = Llama31();
  config.rope_scaling = {
      .kind = RopeScaling::Kind::kLlama3,
      .factor = 8,
      .original_context = 8192,
      .low_freq_factor = 1,
      .high_freq_factor = 4
  };
  const RopeFrequencies rope = MakeRopeFrequencies(config, {});
  double last = 1;
  for (int pair = 0; pair < 64; ++pair) {
    const double wave = 2 * M_PI / Unscaled(config, pair);
    const double divisor = Unscaled(config, pair) / rope.turns[static_cast<std::size_t>(pair)];
    if (wave < 2048) {
      EXPECT_DOUBLE_EQ(divisor, 1) << pair;
    }
    if (wave > 8192) {
      EXPECT_DOUBLE_EQ(divisor, 8) << pair;
    }
    EXPECT_GE(divisor, last) << pair;
    last = divisor;
  }
  // (8192 / wave - 1) / 3 of the way back at a wave of 4096: 1/3 of the frequency, and 2/3 of an
  // eighth of it.
  const double wave = 2 * M_PI / Unscaled(config, 32);
  const double smooth = (8192 / wave - 1) / 3;
  EXPECT_NEAR(rope.turns[32] / Unscaled(config, 32), smooth + (1 - smooth) / 8, 1e-12);
}

TEST(RopeTest, YarnKeepsFastPairsDividesSlowOnesAndScalesTheRest) {
  ModelConfig config = Llama31();
  config.rope_theta = 1000000;
  config.rope_scaling = {
      .kind = RopeScaling::Kind::kYarn,
      .factor = 4,
      .original_context = 32768,
      .attention_factor = 1.138629F
  };
  const RopeFrequencies rope = MakeRopeFrequencies(config, {});
  EXPECT_FLOAT_EQ(static_cast<float>(rope.magnitude), 1.138629F);
  // Pair i turns context * theta^(-i / 64) / 2 pi times: 32 times at i = 23.6, once at 39.6; a ramp
  // from 23 to 40.
  for (int pair = 0; pair < 64; ++pair) {
    const double share = std::clamp((pair - 23) / 17.0, 0.0, 1.0);
    const double expected = Unscaled(config, pair) * (1 - share + share / 4);
    EXPECT_NEAR(rope.turns[static_cast<std::size_t>(pair)] / expected, 1, 1e-9) << pair;
  }
}

}  // namespace
}  // namespace millstream
