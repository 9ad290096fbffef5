// SPDX-License-Identifier: Apache-2.0
// The least time that a machine could take for some requests: what the engine is judged by.
//
// First all prompts, then all answers. Each of the two takes as long as its arithmetic at the
// machine's peak or its reading at memory's, whichever is longer. Prompts read the weights once;
// answers read them once a step, and each token the keys and values before it. Windows count as if
// tokens saw all: for a model that has them the time is too long.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/native_engine.h"
#include "kernels/probe.h"
#include "model/checkpoint.h"

namespace millstream {

/// What tokens cost with a model.
struct TokenCost {
  Compute compute = Compute::kF32;  // not kAuto
  // Multiply-adds:
  double layers = 0;     // of a token, in the matrices of all layers
  double head = 0;       // of one that is sampled
  double attention = 0;  // of one, for each token that it sees
  // Bytes:
  double weights = 0;  // of layers and head
  double cache = 0;    // of a token's keys and values
};

/// Bytes that the file has for the matrices of layers and head.
std::int64_t StoredWeightBytes(const Checkpoint& checkpoint);
/// Weights that take fewer bytes as computed than as stored count as computed.
TokenCost CostOf(const ModelConfig& config, std::int64_t stored_weight_bytes, Compute compute);

/// Tokens of one request.
struct RequestTokens {
  std::int64_t prompt = 0;
  std::int64_t shared = 0;  // of its prompt, those that are computed for a request before it
  std::int64_t output = 0;
};

/// Of requests whose answers take all their max_tokens.
std::vector<RequestTokens> CountTokens(std::span<const Request> requests);

/// Seconds.
struct Limit {
  double prompts = 0;  // and the first token of each answer
  double answers = 0;  // all others
  double all() const { return prompts + answers; }
};

/// With `rows_max` answers at once. What requests share is read once. REQUIRES: peaks above 0.
Limit LimitOf(
    const TokenCost& cost,
    const kernels::Peaks& peaks,
    std::span<const RequestTokens> requests,
    std::int64_t rows_max
);

}  // namespace millstream
