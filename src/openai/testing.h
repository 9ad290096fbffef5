// SPDX-License-Identifier: Apache-2.0
// For tests: an HTTP server on the loopback interface that answers as told.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/task_scope.h"

namespace millstream {

/// One thread a connection. Ends with its connections.
class StubServer {
 public:
  /// The bytes to answer a request's body with, "HTTP/1.1 200 OK..."; empty: the connection is
  /// closed. A GET's body is its path. Called from many threads.
  using Answer = std::function<std::string(const std::string& body)>;

  /// `port` 0: any that is free.
  explicit StubServer(Answer answer, std::uint16_t port = 0);
  ~StubServer();
  StubServer(const StubServer&) = delete;
  StubServer& operator=(const StubServer&) = delete;

  std::string url() const;
  /// A whole reply.
  static std::string Reply(int status, const std::string& body);
  /// That of a chat completion.
  static std::string Completion(const std::string& text);

 private:
  Status Accept(std::stop_token stop);
  Status Serve(int connection);

  const Answer answer_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  Mutex mutex_;
  std::vector<int> connections_ MS_GUARDED_BY(mutex_);
  TaskScope threads_;  // of connections
  TaskScope acceptor_;
};

}  // namespace millstream
