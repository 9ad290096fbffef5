// SPDX-License-Identifier: Apache-2.0
// For tests: a job bound to some rows, and a sink that tells what became of each.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "data/reader.h"
#include "pipeline/bind.h"
#include "pipeline/runner.h"

namespace millstream {

/// A job over JSONL rows. Generate steps may name the models "first" and "second", which are the
/// same tiny one, which has a token for each byte and a context of 128.
class TestJob {
 public:
  /// `folder` gets the rows; it must outlive the job.
  static Result<std::unique_ptr<TestJob>> Make(
      const std::string& folder, const std::string& rows, const std::string& steps
  );

  /// Runs it in splits of so many rows. `engines`: by model.
  Status Run(
      const RunnerOptions& options,
      std::int64_t split_rows,
      const std::map<std::string, Engine*>& engines,
      RowSink& sink,
      std::stop_token stop = {}
  );

  /// Its rows in splits of so many.
  std::vector<Split> Splits(std::int64_t split_rows) const;
  /// Runs what comes of `work`.
  Status RunWork(
      const RunnerOptions& options,
      WorkSource& work,
      const std::map<std::string, Engine*>& engines,
      RowSink& sink,
      std::stop_token stop = {}
  );

  /// The text of a request's prompt.
  static std::string PromptOf(const Request& request);

  BoundJob bound;
  std::vector<Split> more_splits;  // run after those of the rows
  std::atomic<std::int64_t> cut_answers = 0;
  ResultStore* results = nullptr;
  std::stop_token drain;

 private:
  InputOptions input_;
  Snapshot snapshot_;
  std::map<std::string, BoundModel> models_;
};

/// Notes what becomes of each row, by record: "ok" and the values of its columns as JSON, "error"
/// with step and code, or "skipped". A row that comes twice fails the run.
class RecordedRows final : public RowSink {
 public:
  /// Called first with each piece; its failure is Finish's.
  std::function<Status(const FinishedRows&)> on_finish;

  Status Finish(FinishedRows rows) override;
  std::map<std::int64_t, std::string> rows() const;

 private:
  mutable Mutex mutex_;
  std::map<std::int64_t, std::string> rows_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
