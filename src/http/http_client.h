// SPDX-License-Identifier: Apache-2.0
// Single HTTP requests over kept connections, by libcurl.

#pragma once

#include <vector>

#include "base/mutex.h"
#include "http/http.h"

namespace millstream {

/// Follows no redirects, stores no cookies, checks certificates. Thread-safe.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// Sends, and waits for the reply.
  HttpReply Send(const HttpRequest& request);

 private:
  const HttpOptions options_;
  Mutex mutex_;
  std::vector<void*> idle_ MS_GUARDED_BY(mutex_);  // handles, each with its connections
};

}  // namespace millstream
