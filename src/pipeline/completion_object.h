// SPDX-License-Identifier: Apache-2.0
// The completion object with which OpenAI's API answers a request, from the native engine's
// completions.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/random.h"
#include "engine/dialect.h"
#include "engine/engine.h"

namespace millstream {

/// What an answer holds beside the completions.
struct CompletionFrame {
  Endpoint endpoint = Endpoint::kChat;
  RandomKey id;  // the same for the same row of the same job
  std::int64_t created_unix_seconds = 0;
  std::string model;
  std::string prompt;  // as the model got it
  bool echo = false;   // the prompt stands before the answer
  bool split = false;  // `<think>` parts stand in reasoning_content
};

/// The object as JSON. REQUIRES: at least one sample, none failed.
std::string CompletionObject(const CompletionFrame& frame, const std::vector<Completion>& samples);

}  // namespace millstream
