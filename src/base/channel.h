// SPDX-License-Identifier: Apache-2.0
// A bounded queue that connects two pipeline stages.
//
// The bound is the back-pressure: a fast producer blocks in Push() until the consumer catches up.
// Closing ends the stream; the stop token ends the wait. Neither can strand a blocked thread.
//
// Thread-safe: any number of producers and consumers.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <stop_token>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace millstream {

template <typename T>
class Channel {
 public:
  /// Creates a channel that holds at most `capacity` items. REQUIRES: capacity > 0.
  explicit Channel(std::size_t capacity) : capacity_(capacity) {}

  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /// Blocks while the channel is full. Returns false, dropping `item`, if the channel is closed
  /// or `stop` is requested.
  [[nodiscard]] bool Push(T item, std::stop_token stop) {
    MutexLock lock(mutex_);
    const bool ready = not_full_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
      return closed_ || items_.size() < capacity_;
    });
    if (!ready || closed_) return false;
    items_.push_back(std::move(item));
    not_empty_.notify_one();
    return true;
  }

  /// Blocks while the channel is empty, then takes all it holds, in order. Returns nothing once it
  /// is closed and drained, or when `stop` is requested.
  [[nodiscard]] std::vector<T> PopAll(std::stop_token stop) {
    MutexLock lock(mutex_);
    not_empty_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
      return closed_ || !items_.empty();
    });
    if (stop.stop_requested()) return {};
    not_full_.notify_all();
    return std::exchange(items_, {});
  }

  /// Ends the stream. Items already pushed can still be popped. Idempotent.
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    not_full_.notify_all();
    not_empty_.notify_all();
  }

 private:
  const std::size_t capacity_;

  Mutex mutex_;
  std::condition_variable_any not_full_;
  std::condition_variable_any not_empty_;
  std::vector<T> items_ MS_GUARDED_BY(mutex_);
  bool closed_ MS_GUARDED_BY(mutex_) = false;
};

}  // namespace millstream
