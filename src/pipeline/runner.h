// SPDX-License-Identifier: Apache-2.0
// Runs a bound job over splits: readers, operators, feeders and drainers, joined so that memory
// stays bounded and nothing waits for a batch to fill.
//
//   reader threads: piece -> batches -> operators --+--> sink                      (no generate
//   step)
//                                                   +--> queue -> feeder -> engine -> drainer ->
//                                                   operators -> ...
//
// One feeder thread a generate step renders and submits rows while the engine has room; one drainer
// thread an engine passes each row on as it finishes. Queues between them have no bound of their
// own: the bytes in flight of all open pieces together have one, and a reader waits there. The
// oldest open piece never waits, so it can always finish. While the next piece is not there yet,
// rows go on through the engines.

#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "data/input.h"
#include "data/reader.h"
#include "engine/engine.h"
#include "pipeline/bind.h"
#include "pipeline/result_store.h"
#include "pipeline/row_batch.h"
#include "pipeline/work.h"

namespace millstream {

struct RunnerOptions {
  int threads = 0;                 // readers of a job without a generate step; 0: all cores
  std::int64_t batch_rows = 1024;  // rows of a batch that a reader makes
  std::int64_t budget_bytes = 256LL << 20;  // bytes in flight
};

/// What a run works on. Everything must outlive it.
struct RunnerInput {
  const BoundJob* job = nullptr;
  const Snapshot* snapshot = nullptr;
  const InputOptions* input = nullptr;
  WorkSource* work = nullptr;
  /// By the model key of generate steps. Work without a single row needs none.
  std::map<std::string, Engine*> engines;
  std::atomic<std::int64_t>* cut_answers = nullptr;  // counts answers that max_tokens ended
  ResultStore* results = nullptr;  // knows and keeps answers; none: nothing is known or kept
  /// When requested, no more rows are begun and the run ends with those in the engine.
  std::stop_token drain;
  const UnreadRows* unread = nullptr;  // rows that fail without being read, if any
  std::atomic<std::int64_t>* bytes_in_flight = nullptr;  // always shows them
};

/// Puts every row of the work through the job and into `sink`, each exactly once, but for those
/// that are taken back. Returns when all are there, or with the first failure, or Cancelled when a
/// stop or a drain was requested. At a stop the answers under way are cut short, and what they have
/// goes to `results`.
Status RunPipeline(
    const RunnerInput& input, const RunnerOptions& options, RowSink& sink, std::stop_token stop
);

/// Runs rows through operators; what is left of them goes to `end`.
Status RunOperators(
    std::span<const std::unique_ptr<Operator>> operators, RowBatch batch, Emitter& end
);

/// The rows of an input batch as the pipeline carries them; unreadable and foreign rows go to `end`
/// at once. `first_index`: the place in the split of the batch's first row.
Result<RowBatch> StartRows(
    const BoundJob& job,
    InputBatch batch,
    const Piece& piece,
    std::int64_t first_index,
    RowSink& end
);

}  // namespace millstream
