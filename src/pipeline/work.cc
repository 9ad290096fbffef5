// SPDX-License-Identifier: Apache-2.0
#include "pipeline/work.h"

#include <algorithm>
#include <limits>

namespace millstream {

std::int64_t Piece::Count(std::int64_t from, std::int64_t to) const {
  from = std::max(from, begin);
  to = std::max(from, std::min(to, end));
  if (chosen == nullptr) return to - from;
  return std::count(chosen->begin() + from, chosen->begin() + to, true);
}

std::int64_t Piece::EndOfAlike(std::int64_t row) const {
  if (chosen == nullptr) return end;
  const auto from = chosen->begin() + row, to = chosen->begin() + end;
  return std::find(from, to, !*from) - chosen->begin();
}

std::size_t LengthOfRun(std::size_t pieces, int readers) {
  constexpr std::size_t kRunMax = 16;
  return std::clamp<std::size_t>(pieces / (8 * static_cast<std::size_t>(readers)), 1, kRunMax);
}

Result<std::vector<Piece>> FixedWork::Next(int readers, std::stop_token /*stop*/) {
  const std::size_t count = splits_.size();
  const std::size_t run = LengthOfRun(count, readers);
  std::vector<Piece> pieces;
  MutexLock lock(mutex_);
  while (next_ < count && pieces.size() < run) {
    const Split& split = splits_[next_++];
    const std::vector<bool>* chosen = chosen_ == nullptr ? nullptr : &chosen_->at(split.number);
    pieces.push_back({split.number, split, 0, split.num_rows, chosen});
  }
  return pieces;
}

std::int64_t FixedWork::EndOf(std::int64_t /*piece*/) const {
  return std::numeric_limits<std::int64_t>::max();
}

}  // namespace millstream
