// SPDX-License-Identifier: Apache-2.0
// Recomputes an output's account from its files alone.

#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "ledger/ledger.h"
#include "storage/storage.h"

namespace millstream {

struct Verification {
  RowCounts counts;  // recomputed from the parts' rows
  std::int64_t parts = 0;
  std::int64_t rows_missing = 0;  // of splits without a part
  bool complete = false;
  std::string digest;  // of the row data in input order, or empty
};

struct VerifyOptions {
  bool digest = false;  // one hash of the row data
  bool deep = false;    // also every file's hash and every record of the state
};

/// Reads every part: each row of its split must be there or named as skipped, once and in order,
/// and all counts, sizes and names those that were committed. A Conflict names the place of the
/// first mismatch.
Result<Verification> VerifyOutput(
    Storage& storage, const std::string& output, const VerifyOptions& options
);

}  // namespace millstream
