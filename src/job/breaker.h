// SPDX-License-Identifier: Apache-2.0
// Tells a fault of the whole job (a broken model, a wrong key) from rows that fail: by the rows
// that left a model's step, in the order in which they did.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "data/input.h"
#include "job/blamed_rows.h"
#include "pipeline/row_batch.h"
#include "pipeline/spec.h"

namespace millstream {

/// Thread-safe.
class Breaker {
 public:
  /// All must outlive it. Rows that are `blamed` already, if any are, say nothing of the model.
  Breaker(const JobSpec& spec, const Snapshot& snapshot, const BlamedRows* blamed);

  /// Counts finished rows. EngineBroken, with a diagnosis in words and a sample, once too many
  /// failed.
  Status Count(const FinishedRows& rows);
  /// Rows counted so far. A part with rows that failed in a model is to be held back until so many
  /// more as the window has were counted.
  std::int64_t num_counted() const;
  std::int64_t window() const { return spec_.is_on && has_model_ ? spec_.window : 0; }
  /// Whether an error's code is that of a model's failure.
  static bool IsOfModel(const std::string& code);

 private:
  bool CountsAgainst(const RowError& error, const RowId& row) const;
  Status Add(const RowError* error, const RowRef& row) MS_REQUIRES(mutex_);

  const Snapshot& snapshot_;
  const BreakerSpec spec_;
  const BlamedRows* const blamed_;
  const std::optional<ErrorLimit> max_errors_;
  bool has_model_ = false;

  mutable Mutex mutex_;
  std::int64_t counted_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t failed_ MS_GUARDED_BY(mutex_) = 0;  // of the window
  std::deque<bool> last_ MS_GUARDED_BY(mutex_);    // whether each failed
  std::set<std::string> codes_ MS_GUARDED_BY(mutex_);
  bool all_failed_ MS_GUARDED_BY(mutex_) = true;
};

}  // namespace millstream
