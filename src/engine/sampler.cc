// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace millstream {
namespace {

constexpr double kGreedyTemperature = 1e-5;  // vLLM's: below, the likeliest token

using Candidate = SamplerScratch::Candidate;

std::size_t Size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

/// Sums in eight lanes, which is both quick and exact enough.
double Total(std::span<const float> weights) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= weights.size(); i += sums.size()) {
    for (std::size_t lane = 0; lane < sums.size(); ++lane) sums[lane] += weights[i + lane];
  }
  for (; i < weights.size(); ++i) sums[0] += weights[i];
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

std::int32_t DrawFromAll(std::span<const float> weights, double unit) {
  double rest = unit * Total(weights);
  std::int32_t last = kNoToken;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    last = static_cast<std::int32_t>(i);
    rest -= weights[i];
    if (rest < 0) break;
  }
  return last;
}

// Weights lie in [0, 1]. Buckets of their leading bits, 16 to an octave, find the heaviest without
// a full sort.
constexpr int kBucketShift = 19;
constexpr std::size_t kNumBuckets = (0x3f800000U >> kBucketShift) + 1;

std::size_t BucketOf(float weight) {
  return std::min<std::size_t>(
      std::bit_cast<std::uint32_t>(weight) >> kBucketShift, kNumBuckets - 1
  );
}

/// The lowest bucket that must be looked at to find the `top_k` heaviest, or `top_p` of the whole
/// weight.
std::size_t LowestBucket(
    std::span<const float> weights, float floor, const SamplingParams& params
) {
  std::array<std::int64_t, kNumBuckets> counts{};
  std::array<double, kNumBuckets> sums{};
  double total = 0;
  for (const float weight : weights) {
    if (weight <= 0 || weight < floor) continue;
    ++counts[BucketOf(weight)];
    sums[BucketOf(weight)] += weight;
    total += weight;
  }
  std::int64_t count = 0;
  double sum = 0;
  for (std::size_t bucket = kNumBuckets; bucket-- > 0;) {
    count += counts[bucket];
    sum += sums[bucket];
    if (params.top_k > 0 && count >= params.top_k) return bucket;
    // A margin for the order of the sums.
    if (params.top_k <= 0 && sum > (params.top_p + 1e-9) * total) return bucket;
  }
  return 0;
}

/// Leaves the candidates that min_p, top_k and top_p let through, heaviest first.
void Filter(
    std::span<const float> weights, const SamplingParams& params, std::vector<Candidate>& kept
) {
  const auto floor = static_cast<float>(params.min_p);  // the heaviest weighs 1
  const std::size_t lowest = LowestBucket(weights, floor, params);
  kept.clear();
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0 || weights[i] < floor || BucketOf(weights[i]) < lowest) continue;
    kept.push_back({weights[i], static_cast<std::int32_t>(i)});
  }
  std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  });
  if (params.top_k > 0 && kept.size() > Size(params.top_k)) {
    const float least = kept[Size(params.top_k) - 1].weight;
    while (kept.back().weight < least) kept.pop_back();  // equals of the last stay
  }
  if (params.top_p >= 1) return;
  double total = 0;
  for (const Candidate& candidate : kept) total += candidate.weight;
  if (params.top_k <= 0) {
    total = 0;
    for (const float weight : weights) total += weight >= floor ? weight : 0.0F;
  }
  double before = 0;
  std::size_t count = 0;
  for (; count < kept.size() && (count == 0 || before < params.top_p * total); ++count) {
    before += kept[count].weight;
  }
  kept.resize(count);
}

std::int32_t DrawFrom(const std::vector<Candidate>& candidates, double unit) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double rest = unit * total;
  for (const Candidate& candidate : candidates) {
    rest -= candidate.weight;
    if (rest < 0) return candidate.token;
  }
  return candidates.back().token;
}

}  // namespace

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 ||
         params.frequency_penalty != 0;
}

bool IsGreedy(const SamplingParams& params) {
  return params.temperature < kGreedyTemperature;
}

void TokenCounts::AddPrompt(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) counts_.try_emplace(token, 0);
}

void TokenCounts::Penalize(const SamplingParams& params, std::span<float> logits) const {
  const auto repetition = static_cast<float>(params.repetition_penalty);
  for (const auto& [token, count] : counts_) {
    float& logit = logits[Size(token)];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    logit -= static_cast<float>(params.frequency_penalty * static_cast<double>(count));
    if (count > 0) logit -= static_cast<float>(params.presence_penalty);
  }
}

std::int32_t SampleToken(
    const kernels::Kernels& kernels,
    std::span<const float> logits,
    const SamplingParams& params,
    double unit,
    SamplerScratch& scratch
) {
  const auto length = static_cast<std::int64_t>(logits.size());
  const std::int64_t best = kernels.arg_max(logits.data(), length);
  if (best < 0) return kBadLogits;
  const float most = logits[Size(best)];
  if (std::isinf(most)) return most < 0 ? kNoToken : kBadLogits;
  if (IsGreedy(params)) return static_cast<std::int32_t>(best);
  scratch.weights.resize(logits.size());
  const auto scale = static_cast<float>(1 / params.temperature);
  kernels.exponentials(logits.data(), length, most, scale, scratch.weights.data());
  if (params.top_k <= 0 && params.top_p >= 1 && params.min_p <= 0) {
    return DrawFromAll(scratch.weights, unit);
  }
  Filter(scratch.weights, params, scratch.candidates);
  return DrawFrom(scratch.candidates, unit);
}

double LogTotal(
    const kernels::Kernels& kernels, std::span<const float> logits, SamplerScratch& scratch
) {
  const auto length = static_cast<std::int64_t>(logits.size());
  const std::int64_t best = kernels.arg_max(logits.data(), length);
  if (best < 0 || std::isinf(logits[Size(best)])) return std::numeric_limits<double>::quiet_NaN();
  const float most = logits[Size(best)];
  scratch.weights.resize(logits.size());
  kernels.exponentials(logits.data(), length, most, 1, scratch.weights.data());
  return most + std::log(Total(scratch.weights));
}

}  // namespace millstream
