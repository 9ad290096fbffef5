// SPDX-License-Identifier: Apache-2.0
// An output as it stands, for those who look at it or mend it: its ledger, plan and parts' rows.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arrow/record_batch.h"
#include "base/status.h"
#include "data/writer.h"
#include "job/plan.h"
#include "ledger/ledger.h"
#include "storage/storage.h"

namespace millstream {

struct StandingOutput {
  Storage* storage = nullptr;
  std::unique_ptr<Ledger> ledger;
  OutputFormat format = OutputFormat::kParquet;
  Plan plan;
  bool keep_ok = true, keep_errors = true, keep_skipped = false;  // of `output.rows`
};

/// Opens the output at a path that a person gave, of any format. Invalid if there is none. Writes
/// nothing.
Result<StandingOutput> OpenOutput(Storage& storage, const std::string& path);

/// A row of a part, by its place.
struct PlacedRow {
  std::int64_t index = 0;  // in its split
  std::string_view status;
};
/// Reads a file of a split's rows batch by batch; `rows` gets a batch and the place of each of its
/// rows. A Conflict, with its place, if a row is none of the split's, or not once and in order.
using OnRows = std::function<
    Status(const std::shared_ptr<arrow::RecordBatch>& batch, const std::vector<PlacedRow>& places)>;
Status ReadRows(
    const StandingOutput& output, const Split& split, const std::string& path, const OnRows& rows
);

}  // namespace millstream
