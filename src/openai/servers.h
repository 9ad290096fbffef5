// SPDX-License-Identifier: Apache-2.0
// The servers that run one model: how they are reached, and what they say of themselves.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/dialect.h"
#include "http/http.h"

namespace millstream {

struct ServerAccess {
  std::vector<std::string> base_urls;  // "http://gpu-1:8000/v1"
  std::vector<std::string> headers;    // of each request, secrets among them: never logged
  std::vector<std::string> secrets;    // texts that no message may hold; filled by AddSecret()
  std::string ca_file;                 // of certificates to trust, instead of the system's

  HttpOptions http_options() const;
  /// Takes a key, or a header's whole value: what follows its scheme is a secret too, as servers
  /// repeat a key without it, and so is the password that Basic encodes. REQUIRES: not empty.
  void AddSecret(std::string value);
  /// A text without the secrets, which may stand there as JSON escapes them: a server may repeat
  /// the key that it refuses.
  std::string Redacted(std::string message) const;
};

/// A base URL without the /v1 at its end: where a server has what is not OpenAI's.
std::string RootOf(std::string base_url);

/// Waits; whether the time passed without a stop.
bool WaitFor(std::chrono::milliseconds time, const std::stop_token& stop);

struct ServerFacts {
  Dialect dialect = Dialect::kOpenAi;
  std::int64_t context = 0;  // tokens of prompt and answer together; 0: it does not say
};

/// Asks the first server that answers, by GET alone, what it is and how long `model`'s context is.
/// One that does not say what it is counts as OpenAI's. Waits up to `patience` for a server that is
/// not there, which `say` is told. EngineBroken, in words, if none answers or one refuses the key.
Result<ServerFacts> AskServers(
    const ServerAccess& access,
    const std::string& model,
    std::chrono::milliseconds patience,
    const std::function<void(const std::string&)>& say,
    std::stop_token stop
);

}  // namespace millstream
