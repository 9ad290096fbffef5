// SPDX-License-Identifier: Apache-2.0
// Structured concurrency: threads that cannot outlive the block that started them.
//
// The first task to fail stops its siblings, and Join() returns that failure. Destroying the scope
// stops and joins whatever is left, so no thread ever touches a dead stack frame.

#pragma once

#include <exception>
#include <functional>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace millstream {

class TaskScope {
 public:
  using Task = std::function<Status(std::stop_token)>;

  /// Creates a scope that also stops when `parent` does.
  explicit TaskScope(std::stop_token parent = {});
  ~TaskScope();

  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  /// Runs `task` on its own thread. Exceptions become a Status here, at the thread boundary.
  void Spawn(Task task);

  /// Asks every task to stop. Does not wait.
  void RequestStop() { stop_.request_stop(); }

  /// Waits for all tasks. Returns the first failure, or OK.
  Status Join();

 private:
  struct ForwardStop {
    std::stop_source stop;
    void operator()() const noexcept { std::stop_source(stop).request_stop(); }
  };

  void Fail(Status status);

  std::stop_source stop_;
  std::stop_callback<ForwardStop> forward_parent_stop_;

  // Touched only by the owner of the scope.
  std::vector<std::thread> threads_;

  Mutex mutex_;
  Status first_failure_ MS_GUARDED_BY(mutex_) = Status::OK();
};

}  // namespace millstream
