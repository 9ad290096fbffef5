// SPDX-License-Identifier: Apache-2.0
// The account of a job: its plan, what is published, and the final manifest. Knows files and
// counts, never rows.
//
// The output folder holds parts and nothing else; all of this stands beside it, in the state
// folder:
//   job.json           the spec's canonical form, versions, the plan's name; its creation is the
//                      job's birth
//   plan-0000-<hash>   the pinned input, splits, schema and settings, as the job layer wrote them
//   intents/           what parts hold, written before they are published together
//   tmp/               unpublished files
//   success.json       the final counts

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "nlohmann/json.hpp"
#include "storage/storage.h"

namespace millstream {

/// Where an output and its state lie.
struct OutputLayout {
  std::string output;  // the folder, or the single file
  std::string parts;   // folder of the parts
  std::string state;
  std::string suffix;  // of a part, with its dot
  bool is_single_file = false;

  /// `path` as the job file gives it, made absolute; a path that ends in `suffix` is one file.
  static OutputLayout Of(const std::string& path, const std::string& suffix);
  std::string PartPath(std::int64_t split) const;
};

/// What a part holds, or a sum of it over parts.
struct RowCounts {
  std::int64_t ok = 0;
  std::int64_t error = 0;
  std::int64_t skipped = 0;

  std::int64_t total() const { return ok + error + skipped; }
  RowCounts& operator+=(const RowCounts& other);
  friend bool operator==(const RowCounts&, const RowCounts&) = default;
};

/// A split's file, written and closed, not yet published.
struct FinishedPart {
  std::int64_t split = 0;
  std::string path;
  std::string hash;  // of its bytes, 16 hexadecimal digits of XXH3
  RowCounts counts;
};

/// Thread-safe once created or loaded.
class Ledger {
 public:
  /// Starts a job's account. AlreadyExists if one stands there.
  static Result<std::unique_ptr<Ledger>> Create(
      Storage& storage,
      OutputLayout layout,
      nlohmann::ordered_json job,
      const nlohmann::ordered_json& plan
  );
  /// Loads the account, or nothing if there is none. Fails if the output folder holds files of no
  /// job.
  static Result<std::unique_ptr<Ledger>> Load(Storage& storage, OutputLayout layout);

  const OutputLayout& layout() const { return layout_; }
  const nlohmann::ordered_json& job() const { return job_; }
  const nlohmann::ordered_json& plan() const { return plan_; }

  /// The parts that stand, by split, with the counts of their intents.
  Result<std::map<std::int64_t, RowCounts>> Parts() const;

  /// A name for an unpublished file of a split.
  std::string TemporaryPath(std::int64_t split) const;
  /// Publishes finished parts, after one intent that names their hashes and counts. A part that
  /// stands already is adopted and the file dropped.
  Status PublishParts(const std::vector<FinishedPart>& parts);

  /// Whether what a reader opens stands, once all parts do: the single file, if the output is one.
  Result<bool> OutputStands() const;
  /// Publishes a finished file as the single output file.
  Status PublishOutput(const std::string& temporary);

  Status WriteSuccess(const nlohmann::ordered_json& manifest);
  Result<std::optional<nlohmann::ordered_json>> Success() const;

 private:
  Ledger(Storage& storage, OutputLayout layout) : storage_(storage), layout_(std::move(layout)) {}

  // The counts that intents give a split's part, by the part's hash.
  Result<std::map<std::int64_t, std::map<std::string, RowCounts>>> Intended() const;

  Storage& storage_;
  const OutputLayout layout_;
  nlohmann::ordered_json job_, plan_;
};

/// Moves an output and its state aside, to names that it returns.
Result<std::vector<std::string>> MoveAside(Storage& storage, const OutputLayout& layout);

}  // namespace millstream
