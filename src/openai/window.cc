// SPDX-License-Identifier: Apache-2.0
#include "openai/window.h"

#include <algorithm>

namespace millstream {
namespace {

constexpr std::int64_t kFirst = 32;
constexpr double kStep = 1.25;       // by how much to try more, when it does not double
constexpr double kGain = 1.05;       // in the rate that is worth a larger window
constexpr double kClearGain = 1.15;  // that chance does not explain
constexpr double kFull = 0.9;        // of the window, on average
constexpr double kBackOff = 0.7;
// A measurement is of so many windows and requests. One that takes long costs nothing, and chance
// weighs less in it.
constexpr std::int64_t kWindows = 4, kRequests = 1000, kRequestsFast = 8;

}  // namespace

SendWindow::SendWindow(std::int64_t fixed, std::int64_t most)
    : is_fixed_(fixed > 0),
      most_(most),
      size_(std::min(is_fixed_ ? fixed : kFirst, most)),
      base_(size_),
      ceiling_(most) {}

void SendWindow::Resize(double size) {
  before_ = size_;
  size_ = std::clamp(static_cast<std::int64_t>(size), std::int64_t{1}, most_);
  ended_ = 0;
}

void SendWindow::Answered(Time now, std::int64_t work, std::int64_t under_way) {
  if (left_ > 0) --left_;
  if (is_fixed_) return;
  if (before_ > 0 || under_way > size_) {  // or it has shrunk
    before_ = std::max<std::int64_t>(before_ - 1, 0);
    ended_ = 0;
    return;
  }
  if (ended_++ == 0) {
    since_ = now;
    work_ = under_way_ = 0;
    return;
  }
  work_ += work;
  under_way_ += under_way;
  const std::int64_t enough =
      doubles() ? std::max(size_, kRequestsFast) : std::max(kWindows * size_, kRequests);
  if (ended_ <= enough) return;
  const bool was_full = static_cast<double>(under_way_) >=
                        kFull * static_cast<double>(size_) * static_cast<double>(ended_ - 1);
  ended_ = 0;
  if (!was_full) return;
  const double seconds = std::max(std::chrono::duration<double>(now - since_).count(), 1e-6);
  Judge(static_cast<double>(work_) / seconds);
}

void SendWindow::Judge(double rate) {
  const bool is_tried = size_ > base_;
  if (is_tried && rate < base_rate_ * kGain) {
    is_fast_ = false;
    Resize(static_cast<double>(base_));
    return;
  }
  if (is_tried) {
    is_fast_ = rate >= base_rate_ * kClearGain;
    has_shrunk_ = false;
  }
  base_ = size_;
  base_rate_ = rate;
  Resize(static_cast<double>(size_) * (doubles() ? 2 : kStep) + 1);
}

void SendWindow::Busy() {
  if (before_ > 0) --before_;
  if (left_ > 0) {
    --left_;
    return;
  }
  left_ = size_;
  if (is_fixed_) return;
  const double fewer = static_cast<double>(size_) * kBackOff;
  if (!has_shrunk_) ceiling_ = static_cast<std::int64_t>(fewer);
  has_shrunk_ = is_fast_ = true;
  Resize(fewer);
  base_ = size_;
}

}  // namespace millstream
