// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

namespace millstream {
namespace {

using Logits = std::vector<float>;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

const kernels::Kernels& Fastest() {
  return kernels::GetKernels(kernels::FastestIsa(), kernels::Precision::kF32);
}

std::int32_t Sample(const Logits& logits, const SamplingParams& params, double unit) {
  SamplerScratch scratch;
  return SampleToken(Fastest(), logits, params, unit, scratch);
}

/// How often each token comes over evenly spread draws.
std::map<std::int32_t, double> Shares(const Logits& logits, const SamplingParams& params) {
  constexpr int kDraws = 20000;
  std::map<std::int32_t, double> shares;
  SamplerScratch scratch;
  for (int i = 0; i < kDraws; ++i) {
    const double unit = (i + 0.5) / kDraws;
    shares[SampleToken(Fastest(), logits, params, unit, scratch)] += 1.0 / kDraws;
  }
  return shares;
}

/// vLLM's definitions, written down naively: sort, softmax, cumulate.
std::map<std::int32_t, double> Naive(const Logits& logits, const SamplingParams& params) {
  std::vector<std::pair<double, std::int32_t>> tokens;
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp(logits[i] / params.temperature);
    tokens.emplace_back(weight, static_cast<std::int32_t>(i));
    total += weight;
  }
  std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) {
    return a.first > b.first;
  });
  std::erase_if(tokens, [&, most = tokens[0].first](const auto& token) {
    return token.first < params.min_p * most;
  });
  if (params.top_k > 0 && tokens.size() > static_cast<std::size_t>(params.top_k)) {
    tokens.resize(static_cast<std::size_t>(params.top_k));
  }
  const auto sum = [&] {
    return std::accumulate(tokens.begin(), tokens.end(), 0.0, [](double s, const auto& t) {
      return s + t.first;
    });
  };
  total = sum();
  double before = 0;
  std::size_t kept = 0;
  while (kept < tokens.size() && before < params.top_p * total) before += tokens[kept++].first;
  tokens.resize(kept);
  total = sum();
  std::map<std::int32_t, double> shares;
  for (const auto& [weight, token] : tokens) shares[token] = weight / total;
  return shares;
}

void ExpectSameShares(const Logits& logits, const SamplingParams& params) {
  const auto shares = Shares(logits, params);
  const auto naive = Naive(logits, params);
  for (const auto& [token, share] : naive) {
    const auto found = shares.find(token);
    EXPECT_NEAR(found == shares.end() ? 0 : found->second, share, 1e-4) << "token " << token;
  }
  for (const auto& [token, share] : shares) EXPECT_TRUE(naive.contains(token)) << "token " << token;
}

Logits RandomLogits(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> values(0, 3);
  Logits logits(count);
  for (float& logit : logits) logit = values(random);
  return logits;
}

TEST(SamplerTest, TakesTheFirstOfTheLikeliestAtTemperatureZero) {
  EXPECT_EQ(Sample({1, 5, 3, 5}, {.temperature = 0}, 0.9), 1);
}

TEST(SamplerTest, SharesFollowTheParameters) {
  const Logits logits = RandomLogits(300, 1);
  for (const SamplingParams& params :
       {SamplingParams{},
        SamplingParams{.temperature = 0.6},
        SamplingParams{.temperature = 1.7},
        SamplingParams{.top_k = 1},
        SamplingParams{.top_k = 20},
        SamplingParams{.top_k = 1000},
        SamplingParams{.top_p = 0.5},
        SamplingParams{.top_p = 0.95},
        SamplingParams{.top_p = 1e-6},
        SamplingParams{.min_p = 0.1},
        SamplingParams{.min_p = 1},
        SamplingParams{.temperature = 0.8, .top_k = 40, .top_p = 0.9, .min_p = 0.01}}) {
    SCOPED_TRACE(
        testing::Message() << params.temperature << " " << params.top_k << " " << params.top_p
                           << " " << params.min_p
    );
    ExpectSameShares(logits, params);
  }
}

TEST(SamplerTest, NeverTakesAForbiddenToken) {
  const Logits logits = {kMinusInfinity, 1, kMinusInfinity, 0.5F, kMinusInfinity};
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.top_k = 4}, SamplingParams{.temperature = 0}}) {
    for (const double unit : {0.0, 0.5, 1 - 0x1p-53}) {
      const std::int32_t token = Sample(logits, params, unit);
      EXPECT_TRUE(token == 1 || token == 3) << token;
    }
  }
  EXPECT_EQ(Sample({kMinusInfinity, kMinusInfinity}, {}, 0.5), kNoToken);
}

TEST(SamplerTest, ReportsLogitsThatAreNotNumbers) {
  EXPECT_EQ(Sample({1, NAN, 2}, {}, 0.5), kBadLogits);
  EXPECT_EQ(Sample({1, INFINITY, 2}, {.temperature = 0}, 0.5), kBadLogits);
}

TEST(SamplerTest, LogTotalTurnsLogitsIntoLogarithmsOfProbabilities) {
  for (const std::size_t count : {1U, 7U, 300U, 50000U}) {
    Logits logits = RandomLogits(count, 3);
    for (float& logit : logits) logit += 80;  // whose exponential no float holds
    logits.front() = kMinusInfinity;
    logits.back() = 90;
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    SamplerScratch scratch;
    EXPECT_NEAR(LogTotal(Fastest(), logits, scratch), std::log(total), 1e-4) << count;
  }
  SamplerScratch scratch;
  for (const Logits& bad : {Logits{1, NAN}, Logits{1, INFINITY}, Logits{kMinusInfinity}}) {
    EXPECT_TRUE(std::isnan(LogTotal(Fastest(), bad, scratch)));
  }
}

TEST(SamplerTest, PenaltiesFollowVllm) {
  TokenCounts counts;
  const std::vector<std::int32_t> prompt = {0, 1, 1};
  counts.AddPrompt(prompt);
  for (const std::int32_t token : {1, 2, 2, 3}) counts.AddOutput(token);
  Logits logits = {2, 2, 2, -2, 2};
  counts.Penalize(
      {.repetition_penalty = 2, .presence_penalty = 0.5, .frequency_penalty = 0.25}, logits
  );
  EXPECT_EQ(logits, (Logits{1, 1 - 0.5 - 0.25, 1 - 0.5 - 0.5, -4 - 0.5 - 0.25, 2}));
}

}  // namespace
}  // namespace millstream
