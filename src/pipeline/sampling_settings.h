// SPDX-License-Identifier: Apache-2.0
// The sampling keys that are numbers: names, ranges and defaults, and their values for a row.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "engine/engine.h"
#include "engine/language_model.h"
#include "nlohmann/json.hpp"
#include "pipeline/row_batch.h"
#include "pipeline/spec.h"
#include "text/template.h"

namespace millstream {

/// A numeric key of `generate`. vLLM's name, meaning and neutral default.
struct SamplingKey {
  std::string_view name;
  double fallback;
  double min;
  double max;
  bool is_integer;
  bool min_is_open;  // the range leaves `min` itself out
};
std::span<const SamplingKey> SamplingKeys();
/// What is wrong with a value of the key, or empty.
std::string SamplingProblem(const SamplingKey& key, double value);

/// A setting as the plan resolved it, for --dry-run and the plan file.
struct ResolvedSetting {
  std::string step, name, value, source;  // source: "job file", "generation_config.json", "default"
};

struct RowSettings {
  SamplingParams sampling;
  std::int64_t seed = 0;
};

/// Sets one of them. REQUIRES: a value without a SamplingProblem.
void StoreSetting(const SamplingKey& key, double value, RowSettings& settings);

/// The resolved numeric settings of one generate step. Immutable; thread-safe.
class SamplingSettings {
 public:
  /// Job file first, then the model's own wishes, then the neutral default or the job's seed.
  static Result<SamplingSettings> Resolve(
      const std::map<std::string, NumberSetting>& given,
      const GenerationDefaults& model,
      std::int64_t job_seed
  );

  /// The settings of each row of a batch. A row whose value is missing or out of range is named in
  /// `failed`.
  Result<std::vector<RowSettings>> ForRows(
      const arrow::RecordBatch& columns, const std::string& step, std::vector<FailedRow>* failed
  ) const;

  /// Those that the job file gives, but for the seed, by their names: numbers of a row.
  nlohmann::ordered_json Given(const RowSettings& row) const;

  /// What is wrong with a max_tokens of all rows, whatever their prompts; or empty.
  std::string ContextProblem(std::int64_t context) const;

  std::vector<ResolvedSetting> Describe(const std::string& step) const;
  /// The per-row expressions, each with its key.
  std::vector<std::pair<std::string, std::shared_ptr<const Expression>>> expressions() const;

 private:
  struct Number {
    const SamplingKey* key = nullptr;
    double constant = 0;
    std::shared_ptr<const Expression> expression;  // null: the constant
    std::string shown, source;
  };
  std::vector<Number> numbers_;
};

}  // namespace millstream
