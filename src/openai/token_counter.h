// SPDX-License-Identifier: Apache-2.0
// How many tokens a prompt has, as the servers that run the model count them.

#pragma once

#include <stop_token>
#include <string>

#include "base/status.h"
#include "engine/dialect.h"
#include "engine/token_count.h"
#include "openai/servers.h"

namespace millstream {

/// Asks the servers, of a dialect that counts them: vLLM and SGLang at /tokenize, llama-server at
/// /apply-template and /tokenize. Begins with the one that answered last. Waits while none is
/// there, for 15 minutes, then EngineBroken. Thread-safe.
TokenCounter CountAtServers(
    ServerAccess access, Dialect dialect, std::string model, std::stop_token stop
);

}  // namespace millstream
