// SPDX-License-Identifier: Apache-2.0
// An engine for tests: answers by a script, at once or when told, and fails as told.

#pragma once

#include <functional>
#include <memory>

#include "engine/engine.h"

namespace millstream {

struct ScriptedEngineOptions {
  /// The answer to a request. Called on the polling thread.
  std::function<Completion(const Request&)> answer;
  std::int64_t max_requests = 64;   // room
  bool reverse = false;             // finish each poll's requests in reverse order of submission
  std::int64_t die_after = -1;      // Poll fails for good after so many completions
};

std::unique_ptr<Engine> MakeScriptedEngine(ScriptedEngineOptions options);

}  // namespace millstream
