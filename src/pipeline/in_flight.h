// SPDX-License-Identifier: Apache-2.0
// The one budget that bounds a run's memory: bytes of the rows of open pieces of work, from reading
// to part.
//
// Thread-safe.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <stop_token>

#include "base/mutex.h"

namespace millstream {

class InFlight {
 public:
  /// `gauge`, if given, always shows the bytes in flight.
  explicit InFlight(std::int64_t limit_bytes, std::atomic<std::int64_t>* gauge = nullptr)
      : limit_bytes_(limit_bytes), gauge_(gauge) {}
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  void Open(std::int64_t piece);
  /// Blocks until `bytes` more fit, or the piece is the oldest open one, by its number. False if
  /// `stop` is requested.
  [[nodiscard]] bool Admit(std::int64_t piece, std::int64_t bytes, std::stop_token stop);
  /// Counts bytes that came to be without asking: answers.
  void Grow(std::int64_t piece, std::int64_t bytes);
  /// Frees the bytes of an open piece.
  void Close(std::int64_t piece);
  /// Whether every piece that was opened is closed.
  [[nodiscard]] bool idle() const;

 private:
  void Add(std::int64_t bytes) MS_REQUIRES(mutex_);

  const std::int64_t limit_bytes_;
  std::atomic<std::int64_t>* const gauge_;

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::int64_t, std::int64_t> open_ MS_GUARDED_BY(mutex_);  // bytes of each piece
  std::int64_t bytes_ MS_GUARDED_BY(mutex_) = 0;
};

}  // namespace millstream
