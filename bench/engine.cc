// SPDX-License-Identifier: Apache-2.0
// The native engine alone, as fast as it takes requests: seconds, tokens a second, and the share of
// what the machine could do at most.
//
//   engine_bench MODEL.gguf ROWS.jsonl [--compute C] [--tokens N | --mixed] [--threads N] [--rows
//   N]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "engine/language_model.h"
#include "engine/machine.h"
#include "engine/native_engine.h"
#include "engine/roofline.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model, rows;
  NativeEngineOptions engine;
  std::int64_t tokens = 64, num_rows = 256;
  bool mixed = false;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  arguments.model = argv[1];
  arguments.rows = argv[2];
  for (int i = 3; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--mixed") {
      arguments.mixed = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--compute") arguments.engine.compute = ComputeFromName(value);
    if (flag == "--tokens") arguments.tokens = std::atoll(value.c_str());
    if (flag == "--rows") arguments.num_rows = std::atoll(value.c_str());
    if (flag == "--sequences") arguments.engine.max_sequences = std::atoll(value.c_str());
    if (flag == "--step-tokens") arguments.engine.step_tokens = std::atoll(value.c_str());
    if (flag == "--threads") arguments.engine.threads = std::atoi(value.c_str());
  }
  return arguments;
}

Result<std::vector<Request>> Requests(const LanguageModel& model, const Arguments& arguments) {
  std::ifstream file(arguments.rows);
  std::vector<Request> requests;
  for (std::string line; std::getline(file, line);) {
    const Json row = Json::parse(line);
    const std::string system = row.value("system", "You are a helpful assistant.");
    const Json messages = {
        {{"role", "system"}, {"content", system}}, {{"role", "user"}, {"content", row["text"]}}
    };
    MS_ASSIGN_OR_RETURN(
        const std::string prompt, model.chat_template->Render(messages.dump(), ChatOptions())
    );
    Request request;
    request.id = static_cast<RequestId>(requests.size());
    MS_ASSIGN_OR_RETURN(request.prompt_tokens, model.tokenizer->Encode(prompt, true));
    const std::int64_t id = row["id"];
    request.sampling.max_tokens = arguments.mixed ? 8 + id * 37 % 120 : arguments.tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    requests.push_back(std::move(request));
    if (std::ssize(requests) == arguments.num_rows) break;
  }
  return requests;
}

void PrintLimit(
    const LanguageModel& model,
    const NativeEngineOptions& options,
    const std::vector<Request>& requests,
    double seconds
) {
  const Compute compute = ResolveCompute(options.compute, options.isa, *model.checkpoint);
  const auto isa = kernels::IsaByName(InstructionSet(options.isa)).value();
  kernels::Team team(options.threads > 0 ? options.threads : UsableCores());
  const kernels::Peaks peaks = kernels::MeasurePeaks(isa, team, AvailableMemoryBytes() / 4);
  const TokenCost cost =
      CostOf(model.checkpoint->config(), StoredWeightBytes(*model.checkpoint), compute);
  const Limit limit = LimitOf(cost, peaks, CountTokens(requests), options.max_sequences);
  std::printf(
      "in %s, limit %.2f s (prompts %.2f, answers %.2f): %.0f %% of it reached\n"
      "at most: f32 %.0f, bf16 %.0f, int8 %.0f G operations/s; memory %.1f GB/s\n",
      std::string(ComputeName(compute)).c_str(),
      limit.all(),
      limit.prompts,
      limit.answers,
      100 * limit.all() / seconds,
      peaks.f32_flops / 1e9,
      peaks.bf16_flops / 1e9,
      peaks.int8_ops / 1e9,
      peaks.bytes_per_second / 1e9
  );
}

Status Run(const Arguments& arguments) {
  const auto start = Clock::now();
  MS_ASSIGN_OR_RETURN(const auto model, OpenLanguageModel(arguments.model, ""));
  MS_ASSIGN_OR_RETURN(const std::vector<Request> requests, Requests(*model, arguments));
  MS_ASSIGN_OR_RETURN(const auto engine, MakeNativeEngine(model, arguments.engine));
  const auto ready = Clock::now();
  for (const Request& request : requests) engine->Submit(request);
  std::size_t left = requests.size();
  while (left > 0) {
    MS_ASSIGN_OR_RETURN(const auto completions, engine->Poll(Deadline::max(), {}));
    left -= completions.size();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - ready).count();
  const EngineStats stats = engine->stats();
  std::printf(
      "start %.2f s, run %.2f s: %lld prompt and %lld output tokens, %.0f a second, %lld steps, "
      "%lld rows shared\n",
      std::chrono::duration<double>(ready - start).count(),
      seconds,
      static_cast<long long>(stats.prompt_tokens),
      static_cast<long long>(stats.completion_tokens),
      static_cast<double>(stats.prompt_tokens + stats.completion_tokens) / seconds,
      static_cast<long long>(stats.steps),
      static_cast<long long>(stats.shared_requests)
  );
  const auto share = [&](std::int64_t time) { return static_cast<double>(time) / 1e7 / seconds; };
  std::printf(
      "products %.1f %%, attention %.1f %%, head %.1f %%, sampling %.1f %%, rest %.1f %%, idle "
      "%.1f "
      "%%; %.0f tokens a step, %lld of the prompts' cached\n",
      share(stats.products_time),
      share(stats.attention_time),
      share(stats.head_time),
      share(stats.sampling_time),
      share(stats.rest_time),
      share(stats.idle_time),
      static_cast<double>(stats.computed_tokens) / static_cast<double>(stats.steps),
      static_cast<long long>(stats.cached_tokens)
  );
  PrintLimit(*model, arguments.engine, requests, seconds);
  return Status::OK();
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "engine_bench MODEL.gguf ROWS.jsonl [--compute C] [--tokens N]\n");
    return 1;
  }
  const millstream::Status status = millstream::Run(millstream::Parse(argc, argv));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
