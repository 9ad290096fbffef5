// SPDX-License-Identifier: Apache-2.0
// Logging to stderr with a level, through spdlog. Rows and prompts are never logged; secrets have
// no way in, since specs hold only the names of environment variables.
//
// Thread-safe.

#pragma once

#include "spdlog/spdlog.h"

namespace millstream {

/// Sends the log to stderr, in one format. `level`: quiet (errors alone), normal or verbose.
enum class LogLevel { kQuiet, kNormal, kVerbose };
void StartLog(LogLevel level);

}  // namespace millstream
