// SPDX-License-Identifier: Apache-2.0
// Runs the suspects of an earlier death in a child process, and all else in this one.
//
//   FlightRecorder::Read -> suspects -> FlightRecorder::Open(path, suspects) -> CatchFatalSignals
//   MakeGuardedEngine(MakeRecordedEngine(native, recorder), recorder, suspects, make_child)
//
// So a request that kills the process in one run is found by the bisection of a hosted engine in
// the next, and completes with its error.

#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/engine.h"
#include "engine/flight_recorder.h"

namespace millstream {

/// Suspects wait until nothing else is in the engine, and then run in what `make_child` makes; it
/// goes once they are done. Each is no longer suspect when it has finished. `recorder` must outlive
/// the engine.
std::unique_ptr<Engine> MakeGuardedEngine(
    std::unique_ptr<Engine> inner,
    FlightRecorder& recorder,
    std::span<const Flight> suspects,
    std::function<Result<std::unique_ptr<Engine>>()> make_child
);

}  // namespace millstream
