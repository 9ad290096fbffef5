// SPDX-License-Identifier: Apache-2.0
// An engine for tests: answers by a script, at once or when told, and fails as told.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "engine/engine.h"

namespace millstream {

/// Which of the open requests are answered first.
enum class FinishOrder { kSubmitted, kReversed, kShuffled };

struct ScriptedEngineOptions {
  /// The answer to a request. Called on the polling thread. Its id is filled in, and its counts of
  /// tokens where they are 0; an exception out of it becomes the engine's death.
  std::function<Completion(const Request&)> answer;
  /// What a cancelled request has so far. None: nothing.
  std::function<Completion(const Request&)> cut;
  std::int64_t max_requests = 64;  // room
  std::int64_t per_poll = 0;       // at most so many completions a Poll; 0: all that are due
  FinishOrder order = FinishOrder::kSubmitted;
  std::uint64_t seed = 0;       // of a shuffled order
  std::int64_t die_after = -1;  // Poll fails for good after so many completions
  /// Whether a request may be answered yet. Asked on the polling thread at the start of each Poll,
  /// and again whenever a request came in or was cancelled. None: at once. A request never due
  /// hangs until cancelled.
  std::function<bool(const Request&)> is_due;
};

std::unique_ptr<Engine> MakeScriptedEngine(ScriptedEngineOptions options);

}  // namespace millstream
