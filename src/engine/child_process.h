// SPDX-License-Identifier: Apache-2.0
// A child process that talks over a socket and can say how it died.

#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/flight_recorder.h"

namespace millstream {

/// Where the child finds the socket, and the file for its flight record.
inline constexpr int kChildSocket = 0;
inline constexpr int kChildRecord = 3;

/// Owned by one thread, the one that spawned it: the child dies with that thread (HostEngine asks
/// the kernel for it). Killed when destroyed.
class ChildProcess {
 public:
  /// Starts `command`, its standard output going to our standard error. No other descriptor of ours
  /// is open in it, and a terminal's Ctrl-C does not reach it.
  static Result<std::unique_ptr<ChildProcess>> Spawn(const std::vector<std::string>& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  int socket() const { return socket_; }
  void Signal(int number) const;

  struct Exit {
    int signal = 0;  // that killed it, or
    int code = 0;    // with which it exited
  };
  /// Waits for its end; kills it first if it lives. Once.
  Exit Reap();
  /// What its handler of fatal signals left.
  FlightRecord Record() const;

 private:
  ChildProcess() = default;

  pid_t pid_ = -1;  // -1: none, or reaped
  int socket_ = -1;
  int record_ = -1;
};

}  // namespace millstream
