// SPDX-License-Identifier: Apache-2.0
#include "fmt/format.h"
#include "job/job.h"

namespace millstream {
namespace {

EngineStats Sum(const std::vector<const Engine*>& engines) {
  EngineStats sum;
  for (const Engine* engine : engines) sum += engine->stats();
  return sum;
}

}  // namespace

JobMonitor::Progress JobMonitor::progress() const {
  MutexLock lock(mutex_);
  Progress progress = progress_;
  if (!engines_.empty()) progress.tokens = Sum(engines_);
  return progress;
}

std::map<std::string, JobMonitor::ErrorSample> JobMonitor::errors() const {
  MutexLock lock(mutex_);
  return errors_;
}

void JobMonitor::Start(
    std::int64_t rows_total, const RowCounts& before, std::vector<const Engine*> engines
) {
  MutexLock lock(mutex_);
  progress_ = {rows_total, before, 0, before, {}};
  engines_ = std::move(engines);
}

void JobMonitor::Count(const FinishedRows& rows, const std::vector<std::string>& files) {
  MutexLock lock(mutex_);
  const std::int64_t count = rows.batch.num_rows();
  switch (rows.status) {
    case RowStatus::kOk:
      progress_.rows.ok += count;
      break;
    case RowStatus::kSkipped:
      progress_.rows.skipped += count;
      break;
    case RowStatus::kError:
      progress_.rows.error += count;
      break;
  }
  for (std::size_t i = 0; i < rows.errors.size(); ++i) {
    ErrorSample& sample = errors_[rows.errors[i].code];
    if (sample.count++ > 0) continue;
    const RowId id = rows.batch.rows[i].id;
    sample.example = fmt::format(
        "{}:{}: {}", files[static_cast<std::size_t>(id.file)], id.record, rows.errors[i].message
    );
  }
}

void JobMonitor::Show(const Progress& progress, std::map<std::string, ErrorSample> errors) {
  MutexLock lock(mutex_);
  progress_ = progress;
  errors_ = std::move(errors);
}

void JobMonitor::End() {
  MutexLock lock(mutex_);
  if (!engines_.empty()) progress_.tokens = Sum(engines_);
  engines_.clear();
}

}  // namespace millstream
