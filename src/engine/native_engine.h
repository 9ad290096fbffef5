// SPDX-License-Identifier: Apache-2.0
// Our own engine: continuous batching with chunked prefill over a paged KV cache, on the CPU.
//
// Batch-invariant: a request's tokens depend on nothing but the request, the model, `compute` and
// the instruction set; not on the batch, chunking, preemption or the number of threads.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/language_model.h"

namespace millstream {

enum class Compute { kAuto, kF32, kBF16, kInt8 };

struct NativeEngineOptions {
  std::int64_t context = 0;        // tokens a sequence; 0: the model's
  std::uint64_t memory_bytes = 0;  // KV cache; 0: a share of RAM
  int threads = 0;                 // 0: all cores
  Compute compute = Compute::kAuto;
  std::string isa = "auto";          // the instruction set's name; auto: the machine's fastest
  std::int64_t step_tokens = 256;    // token budget of a step
  std::int64_t max_sequences = 256;  // running at once
};

/// The compute that kAuto means for the plan: int8 if the weights are quantised; else bf16 with the
/// instruction set avx512_bf16 and f32 with others, and, if the set is "auto", bf16 where the CPU
/// has AVX512_BF16 and f32 elsewhere.
Compute ResolveCompute(Compute compute, std::string_view isa, const Checkpoint& checkpoint);
std::string_view ComputeName(Compute compute);   // "auto", "f32", "bf16", "int8"
Compute ComputeFromName(std::string_view name);  // kAuto, if it is none
/// The instruction set that the kernels use: "avx512_bf16", "avx512", "avx2", "reference"
/// if `isa` is auto, else `isa` (MILLSTREAM_ISA forces one; MakeNativeEngine says so if the machine
/// lacks it).
std::string_view InstructionSet(std::string_view isa);
/// Which of two instruction sets' names both have whose machines these are.
std::string_view CommonInstructionSet(std::string_view one, std::string_view other);

/// Loads the weights and starts the compute threads. A request that cannot be served completes with
/// one of the codes invalid_request, context_overflow, out_of_kv_memory, grammar_failed,
/// bad_logits, engine_failed.
Result<std::unique_ptr<Engine>> MakeNativeEngine(
    std::shared_ptr<const LanguageModel> model, const NativeEngineOptions& options
);

}  // namespace millstream
