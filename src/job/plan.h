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

/// A split's size in bytes at which it ends, if not by its rows.
inline constexpr std::uint64_t kSplitBytes = 64ULL << 20;

/// A model as the plan pins it.
struct PlannedModel {
  std::string path;  // of one that servers run: its name there
  std::string compute;
  std::uint64_t hash = 0;
  std::string dialect;       // of its servers
  std::int64_t context = 0;  // theirs, in tokens; 0: not asked for
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

/// Input that came to a job after its plan was made: whole new files, and line files that grew.
struct PlanGrowth {
  /// By their number: those of the plan are replaced, further ones added.
  std::map<std::int32_t, InputFile> files;
  std::vector<Split> splits;  // numbered on from the plan's
};

Result<nlohmann::ordered_json> GrowthToJson(const PlanGrowth& growth);
/// Adds what a further generation of the plan says.
Status Grow(const nlohmann::ordered_json& json, Plan& plan);
/// The plan with all its generations.
Result<Plan> PlanOf(const Ledger& ledger);

nlohmann::ordered_json ModelsToJson(const std::map<std::string, PlannedModel>& models);
Result<std::map<std::string, PlannedModel>> ModelsFromJson(const nlohmann::ordered_json& json);
Result<nlohmann::ordered_json> PlanToJson(const Plan& plan);
Result<Plan> PlanFromJson(const nlohmann::ordered_json& json);

/// The names of the input files, by their number.
std::vector<std::string> FileNames(const Snapshot& snapshot);

/// What the job file says of its input, for data/.
Result<InputOptions> InputOptionsOf(const JobSpec& spec);
Result<OutputFormat> OutputFormatOf(const JobSpec& spec);
/// Where the job's output lies.
Result<OutputLayout> OutputLayoutOf(const JobSpec& spec);
/// The same of a path that a person gave, relative to `folder`, whose parts have the suffix.
/// Invalid if it names a whole bucket.
Result<OutputLayout> OutputLayoutAt(
    const std::string& folder, const std::string& path, const std::string& suffix
);

/// Keeps the first `limit` rows of the splits, or so many spread evenly over them.
std::vector<Split> LimitSplits(const std::vector<Split>& splits, std::int64_t limit, bool spread);

}  // namespace millstream
