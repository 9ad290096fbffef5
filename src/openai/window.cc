// SPDX-License-Identifier: Apache-2.0
#include "openai/window.h"

#include <algorithm>

namespace millstream {
namespace {

constexpr std::int64_t kFirst = 32, kMax = 16384;
constexpr double kGrowth = 1.5;  // of the window
constexpr double kGain = 1.05;   // in the rate that is worth a larger one
constexpr double kBackOff = 0.7;

}  // namespace

SendWindow::SendWindow(std::int64_t fixed)
    : is_fixed_(fixed > 0), size_(is_fixed_ ? fixed : kFirst) {}

void SendWindow::Begin(Time now) {
  has_begun_ = true;
  since_ = now;
  ended_ = work_ = 0;
  was_full_ = true;
}

void SendWindow::Answered(Time now, std::int64_t work, std::int64_t under_way) {
  if (left_ > 0) --left_;
  if (is_fixed_) return;
  if (!has_begun_) return Begin(now);
  ++ended_;
  work_ += work;
  was_full_ = was_full_ && under_way >= size_;
  if (ended_ < 2 * size_) return;
  const double seconds = std::max(std::chrono::duration<double>(now - since_).count(), 1e-6);
  const double rate = static_cast<double>(work_) / seconds;
  if (was_full_ && rate > best_rate_ * kGain) {
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
