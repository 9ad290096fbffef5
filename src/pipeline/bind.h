// SPDX-License-Identifier: Apache-2.0
// From a spec to operators: binds every step to the columns that it will see, so that the output's
// schema is known and checked before the first row is read.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrow/type.h"
#include "base/status.h"
#include "pipeline/generate.h"
#include "pipeline/row_batch.h"
#include "pipeline/sampling_settings.h"
#include "pipeline/spec.h"

namespace millstream {

/// Operators up to a generate step, and that step; the last segment has none.
struct Segment {
  std::vector<std::unique_ptr<Operator>> operators;
  std::unique_ptr<GenerateStep> generate;
};

/// A bound job. Immutable; thread-safe.
struct BoundJob {
  std::vector<Segment> segments;
  /// Input columns that must be read, in the input's order.
  std::vector<std::string> input_columns;
  /// Output columns that are input columns unchanged: (input name, output name).
  std::vector<std::pair<std::string, std::string>> kept;
  /// The rows' own columns, then _status, _error and _source.
  std::shared_ptr<arrow::Schema> output;
  std::vector<ResolvedSetting> settings;
  std::vector<std::string> notes;  // for --dry-run
};

struct BindOptions {
  /// By the name that `model:` of a step uses.
  const std::map<std::string, BoundModel>* models = nullptr;
  std::int64_t now_unix_seconds = 0;
};

/// Binds. `sample` holds some input rows, all columns of the input: types of `set` columns are
/// found by evaluating them. Invalid with one line a mistake, as ParseJobFile does.
Result<BoundJob> BindJob(const JobSpec& spec, const RowBatch& sample, const BindOptions& options);

/// _status, _error and _source, which end every output row. `with_answers`: _error keeps
/// RowError::answer.
arrow::FieldVector AccountFields(bool with_answers = false);

/// The message of a mistake in a job file: "FILE:LINE: PATH: MESSAGE".
std::string MistakeLine(const JobSpec& spec, const SpecPlace& place, const std::string& message);

}  // namespace millstream
