// SPDX-License-Identifier: Apache-2.0
#include "engine/roofline.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "kernels/quantized.h"

namespace millstream {
namespace {

using kernels::kPageTokens;

double LayerParameters(const ModelConfig& config) {
  const std::int64_t attended = config.heads * config.head_dim;
  const std::int64_t qkv = attended + 2 * config.kv_heads * config.head_dim;
  return static_cast<double>(config.layers) *
         static_cast<double>(config.hidden * (qkv + attended + 3 * config.feed_forward));
}

double BytesOfWeight(Compute compute) {
  switch (compute) {
    case Compute::kInt8:
      return static_cast<double>(kernels::PanelBlockBytes(kernels::PanelKind::kBytes)) /
             (kernels::kPanelRows * kernels::kBlockColumns);
    case Compute::kBF16:
      return 2;
    default:
      return 4;
  }
}

double MatrixPeak(const kernels::Peaks& peaks, Compute compute) {
  switch (compute) {
    case Compute::kInt8:
      return peaks.int8_ops;
    case Compute::kBF16:
      return peaks.bf16_flops;
    default:
      return peaks.f32_flops;
  }
}

/// 1 + 2 + ... + n.
double SumTo(std::int64_t n) {
  return static_cast<double>(n) * static_cast<double>(n + 1) / 2;
}

/// What one of the two phases asks for.
struct Work {
  double tokens = 0, sampled = 0;
  double seen = 0;  // tokens, by all of `tokens` together
  double bytes = 0;
};

double Seconds(const TokenCost& cost, const kernels::Peaks& peaks, const Work& work) {
  const double products = cost.layers * work.tokens + cost.head * work.sampled;
  // Keys and values are bf16 where weights are less.
  const double attention_peak = cost.compute == Compute::kF32 ? peaks.f32_flops : peaks.bf16_flops;
  const double arithmetic = 2 * products / MatrixPeak(peaks, cost.compute) +
                            2 * cost.attention * work.seen / attention_peak;
  return std::max(arithmetic, work.bytes / peaks.bytes_per_second);
}

}  // namespace

std::int64_t StoredWeightBytes(const Checkpoint& checkpoint) {
  std::size_t bytes = 0;
  const auto add = [&](const std::string& name) {
    const TensorView* tensor = checkpoint.Find(name);
    if (tensor != nullptr) bytes += tensor->size_bytes;
    return tensor != nullptr;
  };
  const bool is_tied = checkpoint.config().tied_embeddings || !add("output.weight");
  if (is_tied) add("token_embd.weight");
  for (std::int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
    for (const char* matrix :
         {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
      add("blk." + std::to_string(layer) + "." + matrix + ".weight");
    }
  }
  return static_cast<std::int64_t>(bytes);
}

TokenCost CostOf(const ModelConfig& config, std::int64_t stored_weight_bytes, Compute compute) {
  TokenCost cost;
  cost.compute = compute;
  cost.layers = LayerParameters(config);
  cost.head = static_cast<double>(config.hidden * config.vocabulary);
  // A product with the key, one with the value.
  cost.attention = 2 * static_cast<double>(config.layers * config.heads * config.head_dim);
  cost.weights = std::min(
      static_cast<double>(stored_weight_bytes), (cost.layers + cost.head) * BytesOfWeight(compute)
  );
  const std::int64_t cached = config.layers * 2 * config.kv_heads * config.head_dim;
  cost.cache = static_cast<double>(cached * (compute == Compute::kF32 ? 4 : 2));
  return cost;
}

std::vector<RequestTokens> CountTokens(std::span<const Request> requests) {
  // Pages of prompts as a tree: a page by the one before it and its tokens.
  std::map<std::pair<std::size_t, std::vector<std::int32_t>>, std::size_t> pages;
  std::vector<RequestTokens> counts;
  for (const Request& request : requests) {
    const std::span<const std::int32_t> prompt(request.prompt_tokens);
    RequestTokens& count = counts.emplace_back();
    count.prompt = std::ssize(prompt);
    count.output = request.sampling.max_tokens;
    std::size_t before = 0;
    // One token at least is computed.
    for (std::int64_t end = kPageTokens; end < count.prompt; end += kPageTokens) {
      const auto tokens = prompt.subspan(static_cast<std::size_t>(end - kPageTokens), kPageTokens);
      const auto [page, is_new] = pages.try_emplace(
          std::pair(before, std::vector(tokens.begin(), tokens.end())), pages.size() + 1
      );
      if (!is_new) count.shared = end;
      before = page->second;
    }
  }
  return counts;
}

Limit LimitOf(
    const TokenCost& cost,
    const kernels::Peaks& peaks,
    std::span<const RequestTokens> requests,
    std::int64_t rows_max
) {
  Work prompts, answers;
  std::int64_t steps = 0;
  for (const RequestTokens& request : requests) {
    prompts.tokens += static_cast<double>(request.prompt - request.shared);
    prompts.sampled += request.output > 0 ? 1 : 0;
    prompts.seen += SumTo(request.prompt) - SumTo(request.shared);
    // The last token of an answer is never computed with.
    const std::int64_t more = std::max<std::int64_t>(0, request.output - 1);
    const auto tokens = static_cast<double>(more);
    answers.tokens += tokens;
    answers.seen += tokens * static_cast<double>(request.prompt) + SumTo(more);
    answers.bytes +=
        cost.cache * (tokens * static_cast<double>(request.prompt - request.shared) + SumTo(more));
    steps = std::max(steps, more);
  }
  answers.sampled = answers.tokens;
  prompts.bytes = requests.empty() ? 0 : cost.weights;
  answers.bytes +=
      cost.weights *
      std::max(static_cast<double>(steps), answers.tokens / static_cast<double>(rows_max));
  return {Seconds(cost, peaks, prompts), Seconds(cost, peaks, answers)};
}

}  // namespace millstream
