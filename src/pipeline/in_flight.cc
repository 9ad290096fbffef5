// SPDX-License-Identifier: Apache-2.0
#include "pipeline/in_flight.h"

#include "base/check.h"

namespace millstream {

void InFlight::Open(std::int64_t piece) {
  MutexLock lock(mutex_);
  open_.emplace(piece, 0);
}

bool InFlight::Admit(std::int64_t piece, std::int64_t bytes, std::stop_token stop) {
  MutexLock lock(mutex_);
  const bool admitted = changed_.wait(lock, stop, [&]() MS_REQUIRES(mutex_) {
    return bytes_ + bytes <= limit_bytes_ || (!open_.empty() && open_.begin()->first == piece);
  });
  if (!admitted || stop.stop_requested()) return false;
  open_.at(piece) += bytes;
  Add(bytes);
  return true;
}

void InFlight::Grow(std::int64_t piece, std::int64_t bytes) {
  MutexLock lock(mutex_);
  const auto found = open_.find(piece);
  if (found == open_.end()) return;
  found->second += bytes;
  Add(bytes);
}

void InFlight::Close(std::int64_t piece) {
  MutexLock lock(mutex_);
  const auto found = open_.find(piece);
  MS_CHECK(found != open_.end());
  Add(-found->second);
  open_.erase(found);
  changed_.notify_all();
}

void InFlight::Add(std::int64_t bytes) {
  bytes_ += bytes;
  if (gauge_ != nullptr) *gauge_ = bytes_;
}

bool InFlight::idle() const {
  MutexLock lock(mutex_);
  return open_.empty();
}

}  // namespace millstream
