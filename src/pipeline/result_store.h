// SPDX-License-Identifier: Apache-2.0
// Where engine results are kept while their rows are not committed, so that none is computed twice.
// The pipeline asks and tells; job/ keeps them in the ledger's row log.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash128.h"
#include "base/status.h"
#include "data/row.h"
#include "engine/engine.h"

namespace millstream {

/// One sample of a row at one generate step.
struct ResultKey {
  std::int64_t split = 0;
  RowId row;
  std::string_view step;
  std::int64_t sample = 0;
  Hash128 request;  // of all that the answer depends on
};

/// What is known of a sample from before: its answer, or the tokens that it began with, or nothing.
struct KnownResult {
  std::optional<Completion> answer;
  std::vector<std::int32_t> prefix;
};

/// Thread-safe.
class ResultStore {
 public:
  virtual ~ResultStore() = default;
  /// Takes what is known of a sample.
  virtual KnownResult Find(const ResultKey& key) = 0;
  /// Keeps an answer: one that the engine ended, never a failed attempt.
  virtual Status Keep(const ResultKey& key, const Completion& answer) = 0;
  /// Notes that a request killed the engine, alone and twice: no run of this job tries it again.
  virtual Status Blame(const ResultKey& key, const Completion& verdict) = 0;
  /// Keeps the beginning of an answer, whose request is stopped.
  virtual Status KeepPrefix(const ResultKey& key, const std::vector<std::int32_t>& tokens) = 0;
};

}  // namespace millstream
