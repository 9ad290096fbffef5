// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

// Clang's thread-safety analysis; no-ops elsewhere. The only macros in base/ besides status.h.
#if defined(__clang__)
#define MS_TSA(x) __attribute__((x))
#else
#define MS_TSA(x)
#endif
#define MS_GUARDED_BY(m) MS_TSA(guarded_by(m))
#define MS_REQUIRES(m) MS_TSA(requires_capability(m))

namespace millstream {

/// Wraps std::mutex so that clang can check who holds it.
class MS_TSA(capability("mutex")) Mutex {
 public:
  void lock() MS_TSA(acquire_capability()) { impl_.lock(); }
  void unlock() MS_TSA(release_capability()) { impl_.unlock(); }

 private:
  std::mutex impl_;
};

/// Holds a Mutex for one scope. Works with std::condition_variable_any.
class MS_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) MS_TSA(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() MS_TSA(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  // For condition variables only.
  void lock() MS_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() MS_TSA(release_capability()) { mutex_.unlock(); }

 private:
  Mutex& mutex_;
};

}  // namespace millstream
