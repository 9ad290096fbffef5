// SPDX-License-Identifier: Apache-2.0
// Which requests are in flight, in a file that outlives the process: who dies names its suspects.
//
// The file also holds a cause, which a handler of fatal signals, a watchdog or a failed allocation
// writes. Without a cause nobody is to blame: a kill -9 or a power cut is no request's fault. What
// is suspect stays so over any number of lives, until it has left.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/alternate_stack.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/status.h"

namespace millstream {

enum class FlightCause : std::uint32_t { kNone, kSignal, kHang, kOutOfMemory };

/// A request, by its stream of draws.
struct Flight {
  RandomKey key;
  std::string name;  // at most 100 bytes of it
};

/// What a process left behind.
struct FlightRecord {
  FlightCause cause = FlightCause::kNone;
  int signal = 0;  // kSignal: its number
  /// kSignal: of the addresses on the stack, relative to their modules.
  std::uint64_t stack_hash = 0;
  /// Those in flight if there is a cause, and those that were suspect already.
  std::vector<Flight> suspects;

  /// "SIGSEGV (stack 0123456789abcdef)", "hang", "out of memory"; "" without a cause.
  std::string Describe() const;
};

/// "SIGSEGV", "SIGKILL"; "signal 99" for one without a name.
std::string SignalName(int signal);

/// Whether a process gets this signal for what it does itself; others are sent to it.
bool IsOfItsOwnMaking(int signal);

/// Thread-safe; made and destroyed on one thread.
class FlightRecorder {
 public:
  static constexpr std::size_t kCapacity = 1024;  // requests; more are not recorded
  static constexpr std::size_t kNameBytes = 100;

  /// What the last process left at `path`; nothing if there is no file. Invalid if it is no such
  /// record.
  static Result<FlightRecord> Read(const std::string& path);
  /// Begins a new record in place of an old one, with those who remain suspect.
  static Result<std::unique_ptr<FlightRecorder>> Open(
      const std::string& path, std::span<const Flight> suspects
  );
  /// Begins one in an open file, which it does not close.
  static Result<std::unique_ptr<FlightRecorder>> OnDescriptor(int fd);
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  void Enter(const Flight& flight);
  void Leave(RandomKey key);
  /// The first cause stands.
  void SetCause(FlightCause cause);

  /// From now on and while it lives, SEGV, BUS, ILL, FPE and ABRT are recorded here before what
  /// they did until now: a core dump and the exit status stay the same. REQUIRES: no other recorder
  /// does.
  void CatchFatalSignals();

 private:
  struct Layout;
  struct Slot;
  using Key = std::pair<std::uint64_t, std::uint64_t>;

  explicit FlightRecorder(Layout* layout);
  void Put(const Flight& flight, std::uint32_t state) MS_REQUIRES(mutex_);

  Layout* const layout_;  // mapped
  AlternateStack stack_;  // of the thread that made it: main's, which is in no TaskScope
  bool catches_signals_ = false;

  Mutex mutex_;
  std::map<Key, std::size_t> slots_ MS_GUARDED_BY(mutex_);
  std::vector<std::size_t> free_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
