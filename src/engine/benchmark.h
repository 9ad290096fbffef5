// SPDX-License-Identifier: Apache-2.0
// What a machine does with a model: rates of the native engine with synthetic rows, beside what the
// machine can do at most.

#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "base/status.h"
#include "engine/native_engine.h"
#include "kernels/probe.h"

namespace millstream {

struct BenchmarkOptions {
  NativeEngineOptions engine;
  // Tokens of a row; 0: 128 and 64, or as many as the context has room for.
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
};

/// Some rows, all at once.
struct Measured {
  std::int64_t rows = 0;
  std::int64_t prompt_tokens = 0, output_tokens = 0;  // of all of them
  double seconds = 0;
  double limit_seconds = 0;  // roofline.h

  double of_limit() const { return limit_seconds / seconds; }
};

struct BenchmarkReport {
  std::string compute, isa;
  int threads = 0;
  std::int64_t prompt_tokens = 0, output_tokens = 0;  // of a row
  double load_seconds = 0;
  kernels::Peaks peaks;
  Measured prompts;     // answers of one token
  Measured one_answer;  // prompts of one token, as are those of:
  Measured answers;     // as many as fill the batch, or for a slow model fewer
  Measured rows;
};

/// Loads what LocateModel found and measures, which takes about fifteen seconds, of a large model
/// longer. `say` is told what is done next.
Result<BenchmarkReport> RunBenchmark(
    const std::string& path,
    const BenchmarkOptions& options,
    const std::function<void(const std::string&)>& say,
    std::stop_token stop
);

}  // namespace millstream
