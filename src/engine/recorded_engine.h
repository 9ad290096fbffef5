// SPDX-License-Identifier: Apache-2.0
// Keeps the flight recorder's account of an engine in this process, and watches it for hangs.

#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "engine/engine.h"
#include "engine/flight_recorder.h"

namespace millstream {

struct RecordedEngineOptions {
  /// Without progress for so long (hosted_engine.h) while polled, the process is ended by SIGABRT,
  /// the cause recorded: a thread that hangs cannot be stopped otherwise. 0: never.
  std::chrono::milliseconds hang_limit{60'000};
  std::function<std::chrono::steady_clock::time_point()> now;  // for tests
};

/// `recorder` must outlive the engine.
std::unique_ptr<Engine> MakeRecordedEngine(
    std::unique_ptr<Engine> inner, FlightRecorder& recorder, RecordedEngineOptions options
);

}  // namespace millstream
