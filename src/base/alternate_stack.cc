// SPDX-License-Identifier: Apache-2.0
#include "base/alternate_stack.h"

#include <sys/mman.h>

namespace millstream {
namespace {

constexpr std::size_t kBytes = std::size_t{64} << 10;

}  // namespace

AlternateStack::AlternateStack() {
  if (sigaltstack(nullptr, &previous_) != 0 || (previous_.ss_flags & SS_DISABLE) == 0) return;
  void* const memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = memory;
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = kBytes;
  sigaltstack(&stack, nullptr);
}

AlternateStack::~AlternateStack() {
  if (memory_ == nullptr) return;
  sigaltstack(&previous_, nullptr);
  munmap(memory_, kBytes);
}

}  // namespace millstream
