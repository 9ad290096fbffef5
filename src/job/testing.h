// SPDX-License-Identifier: Apache-2.0
// For tests: a small job in a folder of its own, and what must come out of it by plain arithmetic.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/scripted_engine.h"
#include "job/job.h"
#include "storage/testing.h"

namespace millstream {

/// Rows that are read, filtered, checked, answered by a scripted engine if there is a model, and
/// counted. Every way for a row to leave is taken by some.
class SmallJob {
 public:
  static constexpr std::int64_t kRows = 24;

  explicit SmallJob(bool has_model);

  /// Options that run it into `output` ("x", or "x.jsonl" for one file) below its folder.
  JobOptions OptionsFor(const std::string& output, const std::string& format) const;
  std::string PathOf(const std::string& output) const { return folder_ / output; }
  const std::string& folder() const { return folder_.path(); }

  /// How its engine answers. Change it before a run to let the engine fail or wait.
  static Completion Answer(const Request& request, const LanguageModel& model);

  /// One line a row of the input: "record status code title", of which a row has what applies.
  static std::vector<std::string> Expected(bool has_model);
  /// The same of what stands at a JSONL output, in the order of the parts.
  std::vector<std::string> Found(const std::string& output) const;
  static RowCounts Counts(const std::vector<std::string>& lines);

 private:
  const TempFolder folder_;
};

/// Runs with nobody listening.
Result<JobReport> RunQuietly(
    Storage& storage, const JobOptions& options, std::stop_token stop = {}
);

}  // namespace millstream
