// SPDX-License-Identifier: Apache-2.0
#include "pipeline/in_flight.h"

#include "base/check.h"

namespace millstream {

void InFlight::Open(std::int64_t split, std::int64_t rows) {
  MutexLock lock(mutex_);
  if (rows > 0) open_[split].rows_left = rows;
}

bool InFlight::Admit(std::int64_t split, std::int64_t bytes, std::stop_token stop) {
  MutexLock lock(mutex_);
  const bool admitted = changed_.wait(lock, stop, [&]() MS_REQUIRES(mutex_) {
    return bytes_ + bytes <= limit_bytes_ || (!open_.empty() && open_.begin()->first == split);
  });
  if (!admitted || stop.stop_requested()) return false;
  open_[split].bytes += bytes;
  Add(bytes);
  return true;
}

void InFlight::Grow(std::int64_t split, std::int64_t bytes) {
  MutexLock lock(mutex_);
  const auto found = open_.find(split);
  if (found == open_.end()) return;
  found->second.bytes += bytes;
  Add(bytes);
}

void InFlight::Finish(std::int64_t split, std::int64_t rows) {
  MutexLock lock(mutex_);
  const auto found = open_.find(split);
  MS_CHECK(found != open_.end() && found->second.rows_left >= rows);
  found->second.rows_left -= rows;
  if (found->second.rows_left > 0) return;
  Add(-found->second.bytes);
  open_.erase(found);
  changed_.notify_all();
}

void InFlight::Add(std::int64_t bytes) {
  bytes_ += bytes;
  if (gauge_ != nullptr) *gauge_ = bytes_;
}

bool InFlight::idle() const {
  MutexLock lock(mutex_);
  return open_.empty() && bytes_ == 0;
}

}  // namespace millstream
