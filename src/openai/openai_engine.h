// SPDX-License-Identifier: Apache-2.0
// An engine that asks OpenAI-compatible servers: vLLM, SGLang, llama-server, hosted ones.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "engine/engine.h"
#include "openai/launcher.h"
#include "openai/servers.h"

namespace millstream {

/// Of a million tokens.
struct TokenPrice {
  double input = 0, output = 0;
};

struct OpenAiEngineOptions {
  ServerAccess access;                    // the load is shared
  std::optional<LauncherOptions> launch;  // a server to start, in place of addresses
  // What a server is asked to see whether it answers at all: a small body for the path of each
  // endpoint that requests are sent to.
  std::map<std::string, std::string> probes;
  TokenPrice price;
  // Requests; 0: as many as get more done. No more than the process may have connections.
  std::int64_t max_in_flight = 0;
  std::int64_t num_engines = 1;  // like this one in the process: they share its connections
  std::int64_t requests_per_minute = 0, tokens_per_minute = 0;       // of all servers; 0: no limit
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};       // of a request
  std::chrono::milliseconds row_deadline{std::chrono::minutes(30)};  // of failing, while others
                                                                     // are answered
  std::chrono::milliseconds gone_limit{std::chrono::minutes(15)};    // without any answer
  // Told when the servers have not answered for a while, and when they do again; from the engine's
  // thread.
  std::function<void(const std::string&)> say;
  std::chrono::milliseconds backoff_first{500};  // before a request is sent again; then it grows
};

/// Serves requests with an `http_body`. A failed one is sent again until it is answered; Poll() is
/// EngineBroken once the servers say that no request will be, or are gone for too long. Waits for a
/// launched server to be ready, or returns why it is not: Invalid if it ended, Cancelled.
Result<std::unique_ptr<Engine>> MakeOpenAiEngine(
    OpenAiEngineOptions options, std::stop_token stop = {}
);

}  // namespace millstream
