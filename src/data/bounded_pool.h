// SPDX-License-Identifier: Apache-2.0
// Where table readers take their memory: no length in an untrusted file can make one buffer larger
// than a row group may be.

#pragma once

#include <cstdint>

#include "arrow/memory_pool.h"

namespace millstream {

/// The largest buffer that a table file can ask for.
inline constexpr std::int64_t kTableBufferBytesMax = std::int64_t{2} << 30;

/// Arrow's default pool, which refuses a larger allocation with OutOfMemory before it is tried.
/// Lives as long as the process: batches keep their pool. Thread-safe.
arrow::MemoryPool* BoundedPool();

}  // namespace millstream
