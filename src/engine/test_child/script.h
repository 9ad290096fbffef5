// SPDX-License-Identifier: Apache-2.0
// What a test and its child processes share: how the child's scripted engine is to die.

#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <string>

#include "engine/engine.h"

namespace millstream {

/// A request's first token tells the scripted engine what to do with it; any other is answered.
enum Deadly : std::int32_t {
  kSegv = 1000,
  kAbort,
  kHang,
  kBadAlloc,
  kOomKill,  // by the kernel, as the child tells the test
  kExit3,
  kStackOverflow,
  kKillItself,  // SIGKILL without a cause
  kDeadlyEnd
};

/// In a file that all of them map.
struct ChildScript {
  static constexpr int kMaxEvents = 1000;

  std::atomic<std::int64_t> asked{0};      // answers, over all children
  std::atomic<pid_t> pid{0};               // of the last child
  std::atomic<std::int64_t> submitted{0};  // requests, over all children
  std::atomic<std::int64_t> wait_for{0};   // so many of them before the first answer
  std::atomic<std::int64_t> oom_kills{0};
  std::atomic<bool> is_stalled{false};  // the child hangs or is stopped: time may fly
  std::atomic<bool> dies_at_start{false};
  std::atomic<bool> dies_of_all{false};  // of any request
  std::atomic<std::int64_t> too_many{0
  };  // so many open requests at once need too much; 0: no limit
  struct Event {
    std::int64_t at = 0;  // the how manieth answer, in order
    int signal = 0;       // that the child then sends itself
  };
  std::atomic<int> next_event{0};
  int num_events = 0;
  Event events[kMaxEvents];

  /// Maps the file; makes it if `fresh`. Never unmapped.
  static ChildScript* Map(const std::string& path, bool fresh) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | (fresh ? O_CREAT | O_TRUNC : 0), 0600);
    if (fd < 0 || (fresh && ftruncate(fd, sizeof(ChildScript)) != 0)) return nullptr;
    void* const memory =
        mmap(nullptr, sizeof(ChildScript), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) return nullptr;
    return fresh ? new (memory) ChildScript : static_cast<ChildScript*>(memory);
  }
};

/// What is answered to a request that is not deadly.
inline Completion ScriptedAnswer(const Request& request) {
  Completion completion;
  completion.id = request.id;
  completion.text = request.name + "/" + std::to_string(request.random.low);
  completion.tokens = {static_cast<std::int32_t>(request.random.low % 1000), 7};
  return completion;
}

}  // namespace millstream
