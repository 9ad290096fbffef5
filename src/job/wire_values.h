// SPDX-License-Identifier: Apache-2.0
// What both of a job's languages (worker_wire.h, cluster_wire.h) are made of.

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/wire.h"
#include "job/job.h"

namespace millstream {

using ErrorSamples = std::map<std::string, JobMonitor::ErrorSample>;

/// Reads so many items, as long as there are bytes.
template <typename Take>
void Repeat(WireReader& in, Take take) {
  for (std::uint64_t left = in.U64(); left > 0 && !in.failed(); --left) take();
}

inline void Put(WireWriter& out, const RowCounts& counts) {
  out.I64(counts.ok);
  out.I64(counts.error);
  out.I64(counts.skipped);
}

inline RowCounts TakeCounts(WireReader& in) {
  RowCounts counts;
  counts.ok = in.I64();
  counts.error = in.I64();
  counts.skipped = in.I64();
  return counts;
}

inline void Put(WireWriter& out, const ErrorSamples& errors) {
  out.U64(errors.size());
  for (const auto& [code, sample] : errors) {
    out.Text(code);
    out.I64(sample.count);
    out.Text(sample.example);
  }
}

inline ErrorSamples TakeErrors(WireReader& in) {
  ErrorSamples errors;
  Repeat(in, [&] {
    JobMonitor::ErrorSample& sample = errors[in.Text()];
    sample.count = in.I64();
    sample.example = in.Text();
  });
  return errors;
}

}  // namespace millstream
