// SPDX-License-Identifier: Apache-2.0
#include "pipeline/sampling_settings.h"

#include <array>
#include <cmath>
#include <limits>

#include "fmt/format.h"
#include "pipeline/expression_columns.h"

namespace millstream {
namespace {

constexpr double kMostTokens = 1 << 24;

constexpr std::array<SamplingKey, 10> kKeys = {{
    {"max_tokens", 512, 1, kMostTokens, true, false},
    {"min_tokens", 0, 0, kMostTokens, true, false},
    {"temperature", 1, 0, 100, false, false},
    {"top_k", 0, -1, kMostTokens, true, false},
    {"top_p", 1, 0, 1, false, true},
    {"min_p", 0, 0, 1, false, false},
    {"repetition_penalty", 1, 0, 100, false, true},
    {"presence_penalty", 0, -2, 2, false, false},
    {"frequency_penalty", 0, -2, 2, false, false},
    {"seed", 0, -kLargestSeed, kLargestSeed, true, false},
}};

std::optional<double> ModelWish(const GenerationDefaults& model, std::string_view name) {
  const auto integer = [](const std::optional<std::int64_t>& value) {
    return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
  };
  if (name == "temperature") return model.temperature;
  if (name == "top_p") return model.top_p;
  if (name == "min_p") return model.min_p;
  if (name == "repetition_penalty") return model.repetition_penalty;
  if (name == "top_k") return integer(model.top_k);
  if (name == "max_tokens") return integer(model.max_tokens);
  return std::nullopt;
}

// The inverse of StoreSetting.
double Load(std::string_view name, const SamplingParams& params) {
  if (name == "max_tokens") return static_cast<double>(params.max_tokens);
  if (name == "min_tokens") return static_cast<double>(params.min_tokens);
  if (name == "temperature") return params.temperature;
  if (name == "top_k") return static_cast<double>(params.top_k);
  if (name == "top_p") return params.top_p;
  if (name == "min_p") return params.min_p;
  if (name == "repetition_penalty") return params.repetition_penalty;
  if (name == "presence_penalty") return params.presence_penalty;
  return params.frequency_penalty;
}

double NumberOf(const Values& values, std::size_t row) {
  switch (values.kinds[row]) {
    case Values::Kind::kInt:
      return static_cast<double>(values.Int(row));
    case Values::Kind::kUint:
      return static_cast<double>(values.numbers[row]);
    case Values::Kind::kDouble:
      return values.Double(row);
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

}  // namespace

void StoreSetting(const SamplingKey& key, double value, RowSettings& settings) {
  const auto whole = static_cast<std::int64_t>(value);
  SamplingParams& params = settings.sampling;
  if (key.name == "seed") settings.seed = whole;
  if (key.name == "max_tokens") params.max_tokens = whole;
  if (key.name == "min_tokens") params.min_tokens = whole;
  if (key.name == "temperature") params.temperature = value;
  if (key.name == "top_k") {
    params.top_k = std::max<std::int64_t>(whole, 0);  // vLLM: -1 and 0 are all
  }
  if (key.name == "top_p") params.top_p = value;
  if (key.name == "min_p") params.min_p = value;
  if (key.name == "repetition_penalty") params.repetition_penalty = value;
  if (key.name == "presence_penalty") params.presence_penalty = value;
  if (key.name == "frequency_penalty") params.frequency_penalty = value;
}

std::span<const SamplingKey> SamplingKeys() {
  return kKeys;
}

std::string SamplingProblem(const SamplingKey& key, double value) {
  if (std::isnan(value)) return fmt::format("{} must be a number", key.name);
  if (key.is_integer && value != std::floor(value)) {
    return fmt::format("{} must be a whole number, not {}", key.name, value);
  }
  if (value < key.min || value > key.max || (key.min_is_open && value == key.min)) {
    return fmt::format(
        "{} must be {} {} and at most {}, not {}",
        key.name,
        key.min_is_open ? "above" : "at least",
        key.min,
        key.max,
        value
    );
  }
  return {};
}

Result<SamplingSettings> SamplingSettings::Resolve(
    const std::map<std::string, NumberSetting>& given,
    const GenerationDefaults& model,
    std::int64_t job_seed
) {
  SamplingSettings settings;
  for (const SamplingKey& key : kKeys) {
    Number number{&key, key.fallback, nullptr, {}, "default"};
    if (const std::optional<double> wish = ModelWish(model, key.name)) {
      number.constant = *wish;
      number.source = model.source;
    }
    if (key.name == "seed") {
      number.constant = static_cast<double>(job_seed);
      number.source = "the job's seed";
    }
    if (const auto found = given.find(std::string(key.name)); found != given.end()) {
      number.source = "job file";
      if (const auto* constant = std::get_if<double>(&found->second.value)) {
        number.constant = *constant;
      } else {
        number.shown = std::get<std::string>(found->second.value);
        MS_ASSIGN_OR_RETURN(
            number.expression, Expression::Compile(number.shown, Expression::Mode::kValue)
        );
      }
    }
    if (!number.expression) {
      if (std::string problem = SamplingProblem(key, number.constant); !problem.empty()) {
        return Status::Invalid(problem, " (from ", number.source, ")");
      }
      number.shown = number.key->is_integer
                         ? fmt::format("{}", static_cast<std::int64_t>(number.constant))
                         : fmt::format("{}", number.constant);
    }
    settings.numbers_.push_back(std::move(number));
  }
  return settings;
}

Result<std::vector<RowSettings>> SamplingSettings::ForRows(
    const arrow::RecordBatch& columns, const std::string& step, std::vector<FailedRow>* failed
) const {
  std::vector<RowSettings> settings(static_cast<std::size_t>(columns.num_rows()));
  for (const Number& number : numbers_) {
    if (!number.expression) {
      for (RowSettings& row : settings) StoreSetting(*number.key, number.constant, row);
      continue;
    }
    MS_ASSIGN_OR_RETURN(const Values values, EvaluateOver(*number.expression, columns));
    for (std::size_t row = 0; row < settings.size(); ++row) {
      const double value = NumberOf(values, row);
      const auto at = static_cast<std::int64_t>(row);
      if (values.kinds[row] == Values::Kind::kError) {
        failed->push_back(
            {at, {step, std::string(values.ErrorCode(row)), std::string(values.Text(row))}}
        );
      } else if (std::string problem = SamplingProblem(*number.key, value); problem.empty()) {
        StoreSetting(*number.key, value, settings[row]);
      } else {
        failed->push_back({at, {step, "bad_parameter", std::move(problem)}});
      }
    }
  }
  return settings;
}

nlohmann::ordered_json SamplingSettings::Given(const RowSettings& row) const {
  nlohmann::ordered_json given = nlohmann::ordered_json::object();
  for (const Number& number : numbers_) {
    const std::string name(number.key->name);
    if (number.source != "job file" || name == "seed") continue;
    const double value = Load(name, row.sampling);
    if (number.key->is_integer) {
      // Of all: 0 is refused by some servers.
      const bool is_all = name == "top_k" && value == 0;
      given[name] = is_all ? -1 : static_cast<std::int64_t>(value);
    } else {
      given[name] = value;
    }
  }
  return given;
}

std::string SamplingSettings::ContextProblem(std::int64_t context) const {
  const Number& most = numbers_.front();  // max_tokens: see kKeys
  if (most.expression || most.constant < static_cast<double>(context)) return {};
  return fmt::format(
      "max_tokens: {} ({}) leaves no room for a prompt in the context of {}",
      most.shown,
      most.source,
      context
  );
}

std::vector<ResolvedSetting> SamplingSettings::Describe(const std::string& step) const {
  std::vector<ResolvedSetting> described;
  described.reserve(numbers_.size());
  for (const Number& number : numbers_) {
    described.push_back({step, std::string(number.key->name), number.shown, number.source});
  }
  return described;
}

std::vector<std::pair<std::string, std::shared_ptr<const Expression>>>
SamplingSettings::expressions() const {
  std::vector<std::pair<std::string, std::shared_ptr<const Expression>>> all;
  for (const Number& number : numbers_) {
    if (number.expression) all.emplace_back(number.key->name, number.expression);
  }
  return all;
}

}  // namespace millstream
