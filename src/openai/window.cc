// SPDX-License-Identifier: Apache-2.0
#include "openai/window.h"

#include <algorithm>

namespace millstream {
namespace {

constexpr std::int64_t kFirst = 32, kMax = 16384;
constexpr double kGrowth = 1.5;  // of the window
constexpr double kGain = 1.05;   // in the rate that is worth a larger one
constexpr double kFull = 0.9;    // of the window, on average
constexpr double kBackOff = 0.7;

}  // namespace

SendWindow::SendWindow(std::int64_t fixed)
    : is_fixed_(fixed > 0), size_(is_fixed_ ? fixed : kFirst) {}

void SendWindow::Begin(Time now) {
  has_begun_ = true;
  since_ = now;
  ended_ = work_ = under_way_ = 0;
}

void SendWindow::Answered(Time now, std::int64_t work, std::int64_t under_way) {
  if (left_ > 0) --left_;
  if (is_fixed_) return;
  if (!has_begun_) return Begin(now);
  ++ended_;
  work_ += work;
  under_way_ += under_way;
  if (ended_ < 2 * size_) return;
  const bool was_full = static_cast<double>(under_way_) >=
                        kFull * static_cast<double>(size_) * static_cast<double>(ended_);
  const double seconds = std::max(std::chrono::duration<double>(now - since_).count(), 1e-6);
  const double rate = static_cast<double>(work_) / seconds;
  if (was_full && rate > best_rate_ * kGain) {
    best_rate_ = rate;
    size_ = std::min(static_cast<std::int64_t>(static_cast<double>(size_) * kGrowth) + 1, kMax);
  }
  Begin(now);
}

void SendWindow::Busy(Time now) {
  if (left_ > 0) {
    --left_;
    return;
  }
  left_ = size_;
  if (is_fixed_) return;
  size_ =
      std::max<std::int64_t>(static_cast<std::int64_t>(static_cast<double>(size_) * kBackOff), 1);
  best_rate_ = 0;  // it may grow again
  Begin(now);
}

}  // namespace millstream
