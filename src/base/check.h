// SPDX-License-Identifier: Apache-2.0
// Assertions for our own bugs. Always on: a check that NDEBUG removes protects nobody. Never
// reachable by user input.

#pragma once

namespace millstream {

/// Prints the failed condition with its place and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace millstream

#define MS_CHECK(condition)                                      \
  do {                                                           \
    if (!(condition)) [[unlikely]]                               \
      ::millstream::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)
