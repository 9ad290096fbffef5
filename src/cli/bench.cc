// SPDX-License-Identifier: Apache-2.0
// `millstream bench`: what this machine does with a model.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "base/compact_json.h"
#include "cli/print.h"
#include "cli/run_flags.h"
#include "engine/benchmark.h"
#include "fmt/format.h"
#include "model/locate.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

struct BenchFlags {
  std::string model, compute = "auto";
  BenchmarkOptions benchmark;
  bool json = false;
};

double PerSecond(std::int64_t count, const Measured& measured) {
  return static_cast<double>(count) / measured.seconds;
}

Json ToJson(const Measured& measured, std::int64_t tokens) {
  return {
      {"rows", measured.rows},
      {"seconds", measured.seconds},
      {"tokens_per_second", PerSecond(tokens, measured)},
      {"of_limit", measured.of_limit()}
  };
}

void PrintJson(const std::string& path, const BenchmarkReport& report) {
  const Measured& rows = report.rows;
  const Json json = {
      {"model", path},
      {"compute", report.compute},
      {"instruction_set", report.isa},
      {"threads", report.threads},
      {"load_seconds", report.load_seconds},
      {"prompts", ToJson(report.prompts, report.prompts.prompt_tokens)},
      {"one_answer", ToJson(report.one_answer, report.one_answer.output_tokens)},
      {"answers", ToJson(report.answers, report.answers.output_tokens)},
      {"rows",
       {{"prompt_tokens", report.prompt_tokens},
        {"output_tokens", report.output_tokens},
        {"rows", rows.rows},
        {"seconds", rows.seconds},
        {"rows_per_hour", 3600 * PerSecond(rows.rows, rows)},
        {"of_limit", rows.of_limit()}}},
      {"peaks",
       {{"f32_flops", report.peaks.f32_flops},
        {"bf16_flops", report.peaks.bf16_flops},
        {"int8_ops", report.peaks.int8_ops},
        {"bytes_per_second", report.peaks.bytes_per_second}}}
  };
  fmt::print("{}\n", CompactJson(json));
}

void PrintLine(const std::string& what, std::int64_t tokens, const Measured& measured) {
  fmt::print(
      "{:<24}{:>12}{:>13.0f} %\n",
      what,
      Grouped(std::llround(PerSecond(tokens, measured))),
      100 * measured.of_limit()
  );
}

void PrintReport(const std::string& path, const BenchmarkReport& report) {
  fmt::print(
      "{}\n{} with {} on {} thread{}; loaded in {:.2f} s\n\n",
      path,
      report.compute,
      report.isa,
      report.threads,
      report.threads == 1 ? "" : "s",
      report.load_seconds
  );
  fmt::print("{:<24}{:>12}{:>15}\n", "", "tokens/s", "of the limit");
  PrintLine("prompts", report.prompts.prompt_tokens, report.prompts);
  PrintLine("one answer", report.one_answer.output_tokens, report.one_answer);
  PrintLine(
      fmt::format("{} answers at once", report.answers.rows),
      report.answers.output_tokens,
      report.answers
  );
  const Measured& rows = report.rows;
  fmt::print(
      "\nrows of {} prompt and {} output tokens: {} an hour, {:.0f} % of the limit ({} measured)\n",
      report.prompt_tokens,
      report.output_tokens,
      Grouped(std::llround(3600 * PerSecond(rows.rows, rows))),
      100 * rows.of_limit(),
      Grouped(rows.rows)
  );
  fmt::print(
      "the machine at most: {:.0f} (f32), {:.0f} (bf16), {:.0f} (int8) billion operations a "
      "second; memory {:.1f} GB/s\n",
      report.peaks.f32_flops / 1e9,
      report.peaks.bf16_flops / 1e9,
      report.peaks.int8_ops / 1e9,
      report.peaks.bytes_per_second / 1e9
  );
}

/// Says on a terminal what is measured now.
class Stages {
 public:
  explicit Stages(bool quiet) : shown_(!quiet && isatty(STDERR_FILENO) != 0) {}
  ~Stages() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  Stages(const Stages&) = delete;
  Stages& operator=(const Stages&) = delete;

  void Say(const std::string& stage) const {
    if (!shown_) return;
    fmt::print(stderr, "\r\033[K{} ...", stage);
    std::fflush(stderr);
  }

 private:
  const bool shown_;
};

int RunBench(const BenchFlags& flags, CommandContext& context) {
  context.drain_seconds = 0;  // nothing is lost
  const std::string folder = std::filesystem::current_path().string();
  const auto path = LocateModel(flags.model, DefaultModelSearch(folder));
  if (!path.ok()) return Complain(path.status());
  const auto report = [&] {
    const Stages stages(context.quiet);
    const auto say = [&](const std::string& stage) { stages.Say(stage); };
    return RunBenchmark(*path, flags.benchmark, say, context.stop);
  }();
  if (!report.ok()) return Complain(report.status());
  if (flags.json) {
    PrintJson(*path, *report);
  } else {
    PrintReport(*path, *report);
  }
  return 0;
}

}  // namespace

void AddBench(CLI::App& app, CommandContext& context) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* bench = app.add_subcommand("bench", "Show what this machine does with a model");
  bench->add_option("model", flags->model, "The model: a name, path or Hugging Face id")
      ->required()
      ->type_name("MODEL")
      ->check(NotEmpty());
  bench
      ->add_option(
          "--prompt-tokens", flags->benchmark.prompt_tokens, "Of a row's prompt (default: 128)"
      )
      ->type_name("N")
      ->check(AtLeastOne());
  bench
      ->add_option(
          "--output-tokens", flags->benchmark.output_tokens, "Of a row's answer (default: 64)"
      )
      ->type_name("N")
      ->check(AtLeastOne());
  bench->add_option("--compute", flags->compute, "auto, f32, bf16 or int8, as in a job file")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}));
  bench
      ->add_option(
          "--threads", flags->benchmark.engine.threads, "Of the engine (default: all cores)"
      )
      ->type_name("N")
      ->check(AtLeastOne());
  bench->add_flag("--json", flags->json, "Print JSON");
  bench->footer(
      "Made-up rows go through the native engine for about fifteen seconds, of a large model "
      "longer. "
      "The limit is what the\nmachine's arithmetic and memory, measured beside it, allow: "
      "docs/engines.md.\n"
      "Examples:\n"
      "  millstream bench smollm2-135m-instruct\n"
      "  millstream bench model.gguf --prompt-tokens 600 --output-tokens 8 --json"
  );
  bench->callback([flags, &context] {
    flags->benchmark.engine.compute = ComputeFromName(flags->compute);
    context.exit_code = RunBench(*flags, context);
  });
}

}  // namespace millstream
