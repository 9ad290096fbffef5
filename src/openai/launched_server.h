// SPDX-License-Identifier: Apache-2.0
// A server that the job starts, as a process: its address, its end, its log.

#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/child_process.h"

namespace millstream {

struct LaunchOptions {
  std::vector<std::string> command;           // {port} stands for the port
  std::string folder;                         // to run it in
  std::string log;                            // a file on this machine
  std::vector<std::string> secret_variables;  // of the environment, which it gets: not to be logged
  /// The command line of a program that calls GuardServer (server_guard.h) with one more argument.
  std::vector<std::string> guard{"/proc/self/exe", "server-guard"};
};

/// A running server, or one that has died. For one thread. Ends the server when destroyed, kindly,
/// which may take some seconds.
class LaunchedServer {
 public:
  /// Starts it on a free port of the loopback interface; it is not ready yet.
  static Result<std::unique_ptr<LaunchedServer>> Start(const LaunchOptions& options);
  ~LaunchedServer();
  LaunchedServer(const LaunchedServer&) = delete;
  LaunchedServer& operator=(const LaunchedServer&) = delete;

  std::string root_url() const;  // "http://127.0.0.1:8123"
  /// Readable once it has died.
  int descriptor() const { return guard_->socket(); }
  /// Whether it has died: then nothing of it is left, and all its connections are closed. Does not
  /// wait.
  bool HasDied();
  /// Of what, in words, once it has.
  const std::string& death() const { return death_; }
  /// Kills it, for HasDied() to notice.
  void Kill();
  /// The last lines of its log.
  std::string LogTail() const;

 private:
  LaunchedServer(const LaunchOptions& options, int port) : options_(options), port_(port) {}
  bool Receive(std::chrono::milliseconds at_most);

  const LaunchOptions options_;
  const int port_;
  std::unique_ptr<ChildProcess> guard_;
  std::string said_;  // by the guard
  std::string death_;
};

}  // namespace millstream
