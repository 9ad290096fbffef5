// SPDX-License-Identifier: Apache-2.0
// TakeSnapshot with its bound as an argument, for tests.

#pragma once

#include <cstdint>
#include <stop_token>

#include "base/status.h"
#include "data/input.h"

namespace millstream {

/// Types come from all values if the files have up to `inference_bytes` in all, else from about as
/// many bytes at the start, middle and end of each file. Everything else is always of the whole.
Result<Snapshot> TakeSnapshot(
    const InputOptions& options, std::uint64_t inference_bytes, std::stop_token stop
);

}  // namespace millstream
