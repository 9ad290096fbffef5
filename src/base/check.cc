// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace millstream {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "millstream: bug: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace millstream
