// SPDX-License-Identifier: Apache-2.0
// Many HTTP requests at a time on one thread, over kept connections, by libcurl.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "http/http.h"

namespace millstream {

/// Follows no redirects, stores no cookies, checks certificates. Its calls are for one thread, but
/// for Wake(). What a request costs does not grow with how many there are.
class HttpLoop {
 public:
  struct Ended {
    std::int64_t id = 0;
    HttpReply reply;
  };

  explicit HttpLoop(HttpOptions options);
  ~HttpLoop();
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;

  /// Begins a request; its body must live until it has ended. `id` is new among those under way.
  void Start(std::int64_t id, HttpRequest request);
  /// Ends a request whose reply nobody waits for; does nothing if it is not under way.
  void Cancel(std::int64_t id);
  /// Works until a request has ended, the time is over, it is woken or the descriptor `also` can be
  /// read. Returns those that ended.
  std::vector<Ended> Run(std::chrono::milliseconds at_most, int also = -1);
  /// Lets Run() return. Thread-safe.
  void Wake();

 private:
  using Clock = std::chrono::steady_clock;
  struct Multi;
  struct UnderWay;
  Multi& WithRoom();
  void Release(UnderWay& one);
  void TakeEnded(Multi& multi, std::vector<Ended>& ended);
  bool Wait(Clock::time_point until);

  const HttpOptions options_;
  const int epoll_, wake_;  // files: of all connections, and of Wake()
  std::vector<std::unique_ptr<Multi>> multis_;
  std::unordered_map<std::int64_t, std::unique_ptr<UnderWay>> under_way_;
  std::vector<void*> idle_;  // handles
};

}  // namespace millstream
