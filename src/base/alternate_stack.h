// SPDX-License-Identifier: Apache-2.0
// A second stack for a thread's signal handlers, so that they run even when the first is used up.

#pragma once

#include <csignal>

namespace millstream {

/// Gives the current thread such a stack while it lives, if it has none (a sanitizer may have given
/// it one). Without memory for it, none: handlers then run on the thread's own.
class AlternateStack {
 public:
  AlternateStack();
  ~AlternateStack();
  AlternateStack(const AlternateStack&) = delete;
  AlternateStack& operator=(const AlternateStack&) = delete;

 private:
  stack_t previous_{};
  void* memory_ = nullptr;
};

}  // namespace millstream
