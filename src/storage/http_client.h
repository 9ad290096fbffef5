// SPDX-License-Identifier: Apache-2.0
// Single HTTP requests over kept connections, by libcurl.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace millstream {

struct HttpOptions {
  long connect_timeout_ms = 10'000;
  long stall_timeout_s = 30;  // below 100 bytes a second for so long
  std::string ca_bundle;      // a file of certificates to trust, instead of the system's
  bool use_proxy = true;      // as the usual environment variables say
};

/// What libcurl signs a request with (AWS Signature Version 4).
struct AwsSigner {
  std::string key_id, secret;
  std::string region;
};

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, PUT or DELETE
  std::string url;             // with its query sorted and encoded, as a signature needs it
  std::vector<std::string> headers;
  std::string_view body;
  std::uint64_t body_bytes_max = 0;  // of a reply; one of a failure is cut off at 64 KiB
  const AwsSigner* signer = nullptr;
};

struct HttpReply {
  enum class End {
    kDone,     // whole, with `status`
    kNotSent,  // no connection
    kBroken,   // ended early: the request may have been done
    kTooLarge,
    kWrong,  // asking again will not help: the URL, a certificate
  };
  End end = End::kDone;
  std::string error;  // unless kDone
  long status = 0;
  std::map<std::string, std::string> headers;  // by names in lower case
  std::string body;

  /// A header's value; empty if there is none.
  const std::string& Header(const std::string& name) const;
};

/// Follows no redirects, stores no cookies, checks certificates. Thread-safe.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  HttpReply Send(const HttpRequest& request);

 private:
  const HttpOptions options_;
  Mutex mutex_;
  std::vector<void*> idle_ MS_GUARDED_BY(mutex_);  // handles, each with its connections
};

}  // namespace millstream
