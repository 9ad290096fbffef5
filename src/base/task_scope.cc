// SPDX-License-Identifier: Apache-2.0
#include "base/task_scope.h"

#include "base/alternate_stack.h"

namespace millstream {

TaskScope::TaskScope(std::stop_token parent)
    : forward_parent_stop_(std::move(parent), ForwardStop{stop_}) {}

TaskScope::~TaskScope() {
  RequestStop();
  for (std::thread& thread : threads_) thread.join();
}

void TaskScope::Spawn(Task task) {
  threads_.emplace_back([this, task = std::move(task)] {
    const AlternateStack stack;  // for whoever records a crash
    Status status = Status::OK();
    try {
      status = task(stop_.get_token());
    } catch (const std::exception& error) {
      status = Status::Invalid(error.what());
    }
    if (!status.ok()) Fail(std::move(status));
  });
}

void TaskScope::Fail(Status status) {
  {
    MutexLock lock(mutex_);
    if (!first_failure_.ok()) return;
    first_failure_ = std::move(status);
  }
  RequestStop();
}

Status TaskScope::Join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  MutexLock lock(mutex_);
  return first_failure_;
}

}  // namespace millstream
