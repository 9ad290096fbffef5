// SPDX-License-Identifier: Apache-2.0
// Against numbers computed by hand.
#include "engine/roofline.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/testing.h"

namespace millstream {
namespace {

constexpr std::int64_t kStored = 84'049'920;  // 134,479,872 weights in Q4_1, 20 bytes for 32
constexpr kernels::Peaks kPeaks{435e9, 880e9, 1760e9, 45e9};

ModelConfig SmolLm2() {
  ModelConfig config;
  config.vocabulary = 49152;
  config.layers = 30;
  config.hidden = 576;
  config.feed_forward = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  return config;
}

TEST(RooflineTest, CountsWhatATokenOfSmolLm2Costs) {
  const TokenCost cost = CostOf(SmolLm2(), kStored, Compute::kInt8);
  EXPECT_EQ(cost.layers, 106'168'320);
  EXPECT_EQ(cost.head, 28'311'552);
  EXPECT_EQ(cost.attention, 34'560);
  EXPECT_EQ(cost.cache, 23'040);
  EXPECT_EQ(cost.weights, 84'049'920);
  EXPECT_EQ(CostOf(SmolLm2(), kStored, Compute::kF32).cache, 46'080);
}

TEST(RooflineTest, CountsWeightsAsComputedWhereThatIsLess) {
  const std::int64_t stored = 537'919'488;  // F32
  EXPECT_EQ(CostOf(SmolLm2(), stored, Compute::kF32).weights, 537'919'488);
  EXPECT_EQ(CostOf(SmolLm2(), stored, Compute::kBF16).weights, 268'959'744);
  EXPECT_EQ(CostOf(SmolLm2(), stored, Compute::kInt8).weights, 151'289'856);
}

TEST(RooflineTest, OneRowIsBoundByArithmeticAndThenByMemory) {
  const TokenCost cost = CostOf(SmolLm2(), kStored, Compute::kInt8);
  const std::vector<RequestTokens> requests = {{.prompt = 100, .shared = 0, .output = 11}};
  const Limit limit = LimitOf(cost, kPeaks, requests, 256);
  // 21,290,287,104 operations of products, 349,056,000 of attention.
  EXPECT_NEAR(limit.prompts, 0.0120967540 + 0.0003966545, 1e-9);
  // Ten times the weights, and 1,055 tokens' keys and values.
  EXPECT_NEAR(limit.answers, 864'806'400 / 45e9, 1e-12);
  EXPECT_EQ(limit.all(), limit.prompts + limit.answers);
}

TEST(RooflineTest, ManyRowsShareTheReadingOfWeights) {
  TokenCost cost;
  cost.layers = 1;
  cost.weights = 1e9;
  const std::vector<RequestTokens> requests(8, {.prompt = 16, .shared = 0, .output = 4});
  const kernels::Peaks peaks{1e9, 1e9, 1e9, 1e9};
  EXPECT_EQ(LimitOf(cost, peaks, requests, 256).answers, 3);  // steps, a second each
  EXPECT_EQ(LimitOf(cost, peaks, requests, 2).answers, 12);
  EXPECT_EQ(LimitOf(cost, peaks, requests, 2).prompts, 1);
  cost.layers = 1e9;
  EXPECT_EQ(LimitOf(cost, peaks, requests, 256).prompts, 2 * 8 * 16);
  EXPECT_EQ(LimitOf(cost, peaks, requests, 256).answers, 2 * 8 * 3);
}

TEST(RooflineTest, WhatIsSharedIsComputedAndReadOnce) {
  TokenCost cost;
  cost.compute = Compute::kBF16;
  cost.layers = 1;
  cost.attention = 1;
  const std::vector<RequestTokens> requests = {{20, 0, 1}, {20, 16, 3}};
  const kernels::Peaks peaks{0.5, 2, 0.5, 1};
  // 24 tokens, which see 210 and 17 + 18 + 19 + 20.
  EXPECT_EQ(LimitOf(cost, peaks, requests, 256).prompts, 24 + 210 + 74);
  cost.layers = cost.attention = 0;
  cost.cache = 1;
  EXPECT_EQ(LimitOf(cost, peaks, requests, 256).answers, 5 + 6);
}

TEST(RooflineTest, NothingTakesNoTime) {
  const TokenCost cost = CostOf(SmolLm2(), kStored, Compute::kBF16);
  EXPECT_EQ(LimitOf(cost, kPeaks, {}, 256).all(), 0);
}

TEST(RooflineTest, CountsBeginningsInWholePagesOnce) {
  std::vector<std::int32_t> tokens(40);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto request = [&](std::size_t length, std::size_t changed, std::int64_t output) {
    Request made;
    made.prompt_tokens.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(length));
    if (changed < length) made.prompt_tokens[changed] = 99;
    made.sampling.max_tokens = output;
    return made;
  };
  const std::vector<Request> requests = {
      request(40, 40, 7),
      request(40, 40, 1),
      request(32, 40, 2),
      request(40, 20, 3),
      request(40, 3, 4),
      request(40, 3, 5)
  };
  const std::vector<RequestTokens> counts = CountTokens(requests);
  std::vector<std::int64_t> shared, outputs;
  for (const RequestTokens& count : counts) {
    shared.push_back(count.shared);
    outputs.push_back(count.output);
  }
  // Of 32 tokens the last is computed, and its page with it.
  EXPECT_EQ(shared, (std::vector<std::int64_t>{0, 32, 16, 16, 0, 32}));
  EXPECT_EQ(outputs, (std::vector<std::int64_t>{7, 1, 2, 3, 4, 5}));
  EXPECT_EQ(counts[2].prompt, 32);
}

TEST(RooflineTest, FindsTheMatricesOfAFile) {
  // In F32, of 2 layers: q, k, v, output, gate, up, down.
  constexpr std::int64_t kLayers = 2 * 4 * (32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 64 * 32);
  for (const bool is_tied : {true, false}) {
    const auto model = OpenTinyLanguageModel({.tied_embeddings = is_tied});
    const std::int64_t head = 4 * 32 * model->checkpoint->config().vocabulary;
    EXPECT_EQ(StoredWeightBytes(*model->checkpoint), kLayers + head);
  }
}

}  // namespace
}  // namespace millstream
