// SPDX-License-Identifier: Apache-2.0
#include "job/breaker.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "engine/engine.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

constexpr double kShare = 20;  // percent of the window
constexpr std::int64_t kLeastFailed = 100;

}  // namespace

Breaker::Breaker(const JobSpec& spec, const Snapshot& snapshot, const BlamedRows* blamed)
    : snapshot_(snapshot), spec_(spec.breaker), blamed_(blamed), max_errors_(spec.max_errors) {
  has_model_ = std::any_of(spec.steps.begin(), spec.steps.end(), [](const StepSpec& step) {
    return std::holds_alternative<GenerateSpec>(step.body);
  });
}

bool Breaker::IsOfModel(const std::string& code) {
  static const std::set<std::string> codes{
      "engine_failed",
      "bad_logits",
      "crash",
      "hang",
      "oom",
      "out_of_kv_memory",
      "fetch",
      "timeout",
      "bad_request"
  };
  return codes.contains(code);
}

std::int64_t Breaker::num_counted() const {
  MutexLock lock(mutex_);
  return counted_;
}

Status Breaker::Count(const FinishedRows& rows) {
  if (!spec_.is_on || !has_model_ || rows.status == RowStatus::kSkipped) return Status::OK();
  MutexLock lock(mutex_);
  for (std::size_t row = 0; row < rows.batch.rows.size(); ++row) {
    const RowError* error = rows.status == RowStatus::kError ? &rows.errors[row] : nullptr;
    if (error != nullptr && !CountsAgainst(*error, rows.batch.rows[row].id)) continue;
    MS_RETURN_NOT_OK(Add(error, rows.batch.rows[row]));
  }
  return Status::OK();
}

bool Breaker::CountsAgainst(const RowError& error, const RowId& row) const {
  if (error.step == "read" || !IsOfModel(error.code)) return false;  // it never was in a model
  return blamed_ == nullptr || !blamed_->HasVerdict(row);
}

Status Breaker::Add(const RowError* error, const RowRef& row) {
  ++counted_;
  last_.push_back(error != nullptr);
  if (error != nullptr) {
    ++failed_;
    codes_.insert(error->code);
  } else {
    all_failed_ = false;
  }
  if (static_cast<std::int64_t>(last_.size()) > spec_.window) {
    failed_ -= last_.front() ? 1 : 0;
    last_.pop_front();
  }
  if (error == nullptr) return Status::OK();
  const auto trip = [&](const std::string& why) {
    return EngineBroken(fmt::format(
        "stopped: {}; the last: {}:{} {}: {}. The model fails, not the rows: mend it and run the "
        "same command again, which tries these rows anew (breaker: off goes on whatever fails)",
        why,
        snapshot_.files[static_cast<std::size_t>(row.id.file)].name,
        row.id.record,
        error->code,
        error->message
    ));
  };
  if (all_failed_ && codes_.size() == 1 && counted_ >= spec_.first) {
    return trip(fmt::format("the first {} rows all failed with {}", counted_, error->code));
  }
  const auto limit = [&](const ErrorLimit& given) {
    return given.is_percent ? given.value * static_cast<double>(spec_.window) / 100 : given.value;
  };
  const double bound = spec_.share ? limit(*spec_.share)
                                   : std::max(
                                         {static_cast<double>(kLeastFailed - 1),
                                          kShare * static_cast<double>(spec_.window) / 100,
                                          max_errors_ ? limit(*max_errors_) : 0.0}
                                     );
  if (static_cast<double>(failed_) <= bound) return Status::OK();
  return trip(fmt::format(
      "{} of the last {} rows failed ({})", failed_, last_.size(), fmt::join(codes_, ", ")
  ));
}

}  // namespace millstream
