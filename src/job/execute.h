// SPDX-License-Identifier: Apache-2.0
// What a run and a retry share: splits through the pipeline, parts into files.

#pragma once

#include <memory>
#include <stop_token>
#include <vector>

#include "data/writer.h"
#include "job/assembler.h"
#include "job/breaker.h"
#include "job/disk_guard.h"
#include "job/job.h"
#include "ledger/ledger.h"
#include "pipeline/result_store.h"
#include "pipeline/runner.h"
#include "storage/storage.h"

namespace millstream {

std::int64_t RowsOf(const std::vector<Split>& splits);
AssemblerOptions AssemblerOptionsOf(const PreparedJob& job);
DiskGuardOptions DiskGuardOptionsOf(
    const PreparedJob& job, const JobOptions& options, const JobMonitor& monitor
);
std::vector<const Engine*> Views(const JobEngines& engines);

/// Puts work through the pipeline into the sink. `results` and `breaker` may be null.
Status RunWork(
    const PreparedJob& job,
    WorkSource& work,
    const JobOptions& options,
    const JobEngines& engines,
    JobMonitor& monitor,
    RowSink& sink,
    ResultStore* results,
    Breaker* breaker,
    std::stop_token stop
);

/// Writes a split's rows to an unpublished file, and those that the output leaves out to another.
Result<FinishedPart> WritePart(
    Storage& storage,
    const Ledger& ledger,
    OutputFormat format,
    const Plan& plan,
    const FinishedSplit& split
);
/// Writes the rows of all parts as the single output file, and the failed rows as theirs.
Status WriteSingleFile(Storage& storage, Ledger& ledger, OutputFormat format, const Plan& plan);

/// Says which keys of request bodies were ignored, if any.
void SayIgnored(const BoundJob& job, const Say& say);

nlohmann::ordered_json Manifest(const PreparedJob& job, const RowCounts& counts);
bool TooManyErrors(const JobSpec& spec, const RowCounts& counts);

}  // namespace millstream
