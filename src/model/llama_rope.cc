// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/llama.h"

namespace millstream {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

double ScaleLlama3(const RopeScaling& scaling, double context, double frequency) {
  const double wave = kTurn / frequency;
  if (wave < context / scaling.high_freq_factor) return frequency;
  if (wave > context / scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth = (context / wave - scaling.low_freq_factor) /
                        (static_cast<double>(scaling.high_freq_factor) - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

/// The dimension that turns `turns` times within the original context.
double YarnDimension(const ModelConfig& config, double context, double turns) {
  return static_cast<double>(config.head_dim) * std::log(context / (turns * kTurn)) /
         (2 * std::log(static_cast<double>(config.rope_theta)));
}

double ScaleYarn(const ModelConfig& config, double context, std::int64_t pair, double frequency) {
  const RopeScaling& scaling = config.rope_scaling;
  const double last = static_cast<double>(config.head_dim) - 1;
  const double low = std::max(std::floor(YarnDimension(config, context, scaling.beta_fast)), 0.0);
  double high = std::min(std::ceil(YarnDimension(config, context, scaling.beta_slow)), last);
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return frequency / scaling.factor * ramp + frequency * (1 - ramp);
}

}  // namespace

RopeFrequencies MakeRopeFrequencies(const ModelConfig& config, std::span<const float> factors) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto context =
      static_cast<double>(scaling.original_context > 0 ? scaling.original_context : config.context);
  RopeFrequencies result;
  for (std::int64_t pair = 0; pair < config.head_dim / 2; ++pair) {
    const double exponent = 2 * static_cast<double>(pair) / static_cast<double>(config.head_dim);
    double frequency = std::pow(static_cast<double>(config.rope_theta), -exponent);
    if (!factors.empty()) frequency /= factors[static_cast<std::size_t>(pair)];
    switch (scaling.kind) {
      case RopeScaling::Kind::kNone:
        break;
      case RopeScaling::Kind::kLinear:
        frequency /= scaling.factor;
        break;
      case RopeScaling::Kind::kLlama3:
        frequency = ScaleLlama3(scaling, context, frequency);
        break;
      case RopeScaling::Kind::kYarn:
        frequency = ScaleYarn(config, context, pair, frequency);
        break;
    }
    result.turns.push_back(frequency);
  }
  if (scaling.kind == RopeScaling::Kind::kYarn) result.magnitude = scaling.attention_factor;
  return result;
}

}  // namespace millstream
