// SPDX-License-Identifier: Apache-2.0
// An HTTP request and what came of it.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millstream {

struct HttpOptions {
  long connect_timeout_ms = 10'000;
  long stall_timeout_s = 30;    // below 100 bytes a second for so long; 0: no limit
  std::string ca_bundle;        // a file of certificates to trust, instead of the system's
  bool use_proxy = true;        // as the usual environment variables say
  bool is_multiplexed = false;  // HTTP/2 where a server offers it over TLS
  // A request that a kept connection breaks under before any reply may be sent again, unsaid: it
  // may have been done. Else it ends as kBroken.
  bool resends = true;
  std::size_t connections_max = 1 << 16;  // kept open by an HttpLoop
  long buffer_bytes = 16384;              // of each request under way: what is read at a time
};

/// What libcurl signs a request with (AWS Signature Version 4).
struct AwsSigner {
  std::string key_id, secret;
  std::string region;
};

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, PUT, POST or DELETE
  std::string url;             // with its query sorted and encoded, as a signature needs it
  std::vector<std::string> headers;
  std::string_view body;             // of a PUT or POST
  std::uint64_t body_bytes_max = 0;  // of a reply; one of a failure is cut off at 64 KiB
  long timeout_ms = 0;               // of all of it; 0: no limit
  bool own_connection = false;       // not a kept one, and not kept
  const AwsSigner* signer = nullptr;
};

struct HttpReply {
  enum class End {
    kDone,     // whole, with `status`
    kNotSent,  // no connection
    kBroken,   // ended early: the request may have been done
    kTimeout,  // the same, as it took too long
    kTooLarge,
    kWrong,  // asking again will not help: the URL, a certificate
  };
  End end = End::kDone;
  bool is_refused = false;  // kNotSent: nobody listens at the port
  std::string error;        // unless kDone
  long status = 0;
  std::map<std::string, std::string> headers;  // by names in lower case
  std::string body;

  /// A header's value; empty if there is none.
  const std::string& Header(const std::string& name) const;
};

/// A date as headers write it, in seconds since 1970.
std::optional<std::int64_t> ParseHttpDate(const std::string& date);

}  // namespace millstream
