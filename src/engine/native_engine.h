// SPDX-License-Identifier: Apache-2.0
// Our own engine: continuous batching with chunked prefill over a paged KV cache, on the CPU.
//
// Batch-invariant: a request's tokens depend on nothing but the request, the model, `compute` and the
// instruction set; not on the batch, chunking, preemption or the number of threads.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/language_model.h"

namespace millstream {

enum class Compute { kAuto, kF32, kBF16 };

struct NativeEngineOptions {
  std::int64_t context = 0;       // tokens a sequence; 0: the model's
  std::uint64_t memory_bytes = 0; // KV cache; 0: a share of RAM
  int threads = 0;                // 0: all cores
  Compute compute = Compute::kAuto;
  std::int64_t step_tokens = 256;   // token budget of a step
  std::int64_t max_sequences = 256; // running at once
};

/// The compute that kAuto means on this machine, for the plan; kBF16 falls back to f32 arithmetic only where the CPU has no AVX2.
Compute ResolveCompute(Compute compute);
std::string_view ComputeName(Compute compute);
/// The instruction set that the kernels use: "avx512", "avx2", "reference" (MILLSTREAM_ISA forces one).
std::string_view InstructionSet();

/// Loads the weights and starts the compute threads.
Result<std::unique_ptr<Engine>> MakeNativeEngine(
    std::shared_ptr<const LanguageModel> model, const NativeEngineOptions& options
);

}  // namespace millstream
