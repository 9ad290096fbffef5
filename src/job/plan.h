// SPDX-License-Identifier: Apache-2.0
// The plan of a job: everything that is decided once, before the first row. A resumed job loads it,
// it never plans again.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "arrow/type.h"
#include "base/status.h"
#include "data/input.h"
#include "data/writer.h"
#include "ledger/ledger.h"
#include "nlohmann/json.hpp"
#include "pipeline/bind.h"
#include "pipeline/spec.h"

namespace millstream {

/// A model as the plan pins it.
struct PlannedModel {
  std::string path;
  std::string compute;
  std::uint64_t hash = 0;
};

struct Plan {
  Snapshot snapshot;
  std::vector<Split> splits;
  std::shared_ptr<arrow::Schema> output;  // the rows' schema, account columns included
  std::map<std::string, PlannedModel> models;
  std::string instruction_set;
  std::int64_t now_unix_seconds = 0;
  std::vector<ResolvedSetting> settings;
};

Result<nlohmann::ordered_json> PlanToJson(const Plan& plan);
Result<Plan> PlanFromJson(const nlohmann::ordered_json& json);

/// What the job file says of its input, for data/.
Result<InputOptions> InputOptionsOf(const JobSpec& spec);
Result<OutputFormat> OutputFormatOf(const JobSpec& spec);
/// Where the job's output lies.
Result<OutputLayout> OutputLayoutOf(const JobSpec& spec);

/// Keeps the first `limit` rows of the splits, or so many spread evenly over them.
std::vector<Split> LimitSplits(const std::vector<Split>& splits, std::int64_t limit, bool spread);

}  // namespace millstream
