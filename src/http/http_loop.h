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
/// for Wake().
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
  /// Works until a request has ended, the time is over or it is woken. Returns those that ended.
  std::vector<Ended> Run(std::chrono::milliseconds at_most);
  /// Lets Run() return. Thread-safe.
  void Wake();

 private:
  struct UnderWay;
  void Release(void* handle);

  const HttpOptions options_;
  void* const multi_;
  std::unordered_map<std::int64_t, std::unique_ptr<UnderWay>> under_way_;
  std::vector<void*> idle_;  // handles
};

}  // namespace millstream
