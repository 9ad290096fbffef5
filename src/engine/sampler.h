// SPDX-License-Identifier: Apache-2.0
// From logits to a token, with vLLM's parameters in vLLM's order: penalties, temperature, min_p,
// top_k, top_p, then the draw. Pure functions of their arguments.

#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "kernels/kernels.h"

namespace millstream {

/// How often each token was generated, and which stand in the prompt: what penalties need.
class TokenCounts {
 public:
  void AddPrompt(std::span<const std::int32_t> tokens);
  void AddOutput(std::int32_t token) { ++counts_[token]; }
  /// Changes the logits of the tokens seen.
  void Penalize(const SamplingParams& params, std::span<float> logits) const;

 private:
  std::unordered_map<std::int32_t, std::int64_t> counts_;  // 0: in the prompt alone
};

bool HasPenalties(const SamplingParams& params);
/// Whether the likeliest token is always taken, and nothing drawn.
bool IsGreedy(const SamplingParams& params);

/// Buffers for one call at a time.
struct SamplerScratch {
  struct Candidate {
    float weight;
    std::int32_t token;
  };
  std::vector<float> weights;
  std::vector<Candidate> candidates;
};

constexpr std::int32_t kNoToken = -1;    // no token is allowed
constexpr std::int32_t kBadLogits = -2;  // a NaN, or an infinite logit

/// Chooses a token: the likeliest at temperature 0 (the first of equals), else by `unit`, a draw in
/// [0, 1). Tokens whose logit is minus infinity are not allowed.
std::int32_t SampleToken(
    const kernels::Kernels& kernels,
    std::span<const float> logits,
    const SamplingParams& params,
    double unit,
    SamplerScratch& scratch
);

/// The logarithm of the sum of the logits' exponentials: a logit less this is the logarithm of a
/// probability. NaN if a logit is NaN, or none is finite.
double LogTotal(
    const kernels::Kernels& kernels, std::span<const float> logits, SamplerScratch& scratch
);

}  // namespace millstream
