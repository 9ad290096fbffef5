// SPDX-License-Identifier: Apache-2.0
// Finished parts that wait until it is known that not the model is broken.

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "job/breaker.h"
#include "ledger/ledger.h"

namespace millstream {

/// Parts with rows that failed in a model, until enough rows came after them: what fails may be the
/// model, and then they are to be tried again. Thread-safe.
class HeldParts {
 public:
  explicit HeldParts(const Breaker& breaker) : breaker_(breaker) {}

  /// `codes`: of its rows' errors.
  void Add(FinishedPart part, const std::set<std::string>& codes) {
    const bool holds = std::any_of(codes.begin(), codes.end(), Breaker::IsOfModel);
    MutexLock lock(mutex_);
    parts_.emplace(holds ? breaker_.num_counted() + breaker_.window() : 0, std::move(part));
  }
  /// Those that are held no longer.
  std::vector<FinishedPart> Ready() { return Take(breaker_.num_counted()); }
  std::vector<FinishedPart> All() { return Take(std::numeric_limits<std::int64_t>::max()); }

 private:
  std::vector<FinishedPart> Take(std::int64_t counted) {
    MutexLock lock(mutex_);
    std::vector<FinishedPart> ready;
    const auto end = parts_.upper_bound(counted);
    for (auto part = parts_.begin(); part != end; ++part) ready.push_back(std::move(part->second));
    parts_.erase(parts_.begin(), end);
    return ready;
  }

  const Breaker& breaker_;
  Mutex mutex_;
  std::multimap<std::int64_t, FinishedPart> parts_ MS_GUARDED_BY(mutex_);  // by when they are ready
};

}  // namespace millstream
