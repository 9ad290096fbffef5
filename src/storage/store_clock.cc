// SPDX-License-Identifier: Apache-2.0
#include "storage/store_clock.h"

#include <fmt/format.h>

#include <condition_variable>
#include <random>

#include "base/mutex.h"

namespace millstream {
namespace {

class SystemClock final : public StoreClock {
 public:
  std::chrono::milliseconds Now() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now().time_since_epoch()
    );
  }
  bool Wait(std::chrono::milliseconds duration, std::stop_token stop) override {
    Mutex mutex;
    std::condition_variable_any never;
    MutexLock lock(mutex);
    never.wait_for(lock, stop, duration, [] { return false; });
    return !stop.stop_requested();
  }
  std::uint64_t Random() override {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
  }
};

}  // namespace

std::shared_ptr<StoreClock> MakeSystemClock() {
  return std::make_shared<SystemClock>();
}

std::string UniqueName(StoreClock& clock) {
  const std::uint64_t high = clock.Random();
  return fmt::format("{:016x}{:016x}", high, clock.Random());
}

}  // namespace millstream
