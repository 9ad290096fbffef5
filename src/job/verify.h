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

/// Reads every part: each row must be one of its split, once and in order, and the counts must be
/// those that were committed. A Conflict names the place of the first mismatch.
Result<Verification> VerifyOutput(Storage& storage, const std::string& output, bool digest);

}  // namespace millstream
