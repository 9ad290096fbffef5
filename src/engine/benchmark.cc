// SPDX-License-Identifier: Apache-2.0
#include "engine/benchmark.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "engine/machine.h"
#include "engine/roofline.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kPromptTokens = 128, kOutputTokens = 64;  // of a row, unless asked otherwise
constexpr std::int64_t kPromptRun = 512;                         // tokens of prompts at once
constexpr std::int64_t kAnswerRun = 32;                          // tokens of an answer
// How long to measure for. What is repeated is measured once at least.
constexpr double kPromptSeconds = 2, kOneAnswerSeconds = 1.5, kAnswerSeconds = 3, kRowSeconds = 6;
constexpr std::int64_t kRowsMax = 1024;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Runs made-up rows.
class Bench {
 public:
  Bench(
      Engine& engine,
      const ModelConfig& config,
      const TokenCost& cost,
      const kernels::Peaks& peaks,
      std::int64_t rows_max,
      std::stop_token stop
  )
      : engine_(engine),
        vocabulary_(static_cast<std::uint64_t>(config.vocabulary)),
        cost_(cost),
        peaks_(peaks),
        rows_max_(rows_max),
        stop_(std::move(stop)) {}

  /// So many rows at once, again and again until so many seconds have passed.
  Result<Measured> Run(
      std::int64_t rows, std::int64_t prompt_tokens, std::int64_t output_tokens, double seconds
  ) {
    Measured measured;
    do {
      MS_RETURN_NOT_OK(RunOnce(rows, prompt_tokens, output_tokens, measured));
    } while (measured.seconds < seconds);
    return measured;
  }

 private:
  Status RunOnce(
      std::int64_t rows, std::int64_t prompt_tokens, std::int64_t output_tokens, Measured& measured
  ) {
    std::vector<Request> requests;
    requests.reserve(static_cast<std::size_t>(rows));
    for (std::int64_t id = 0; id < rows; ++id) {
      requests.push_back(MakeRequest(id, prompt_tokens, output_tokens));
    }
    std::vector<RequestTokens> counts = CountTokens(requests);
    const auto begin = Clock::now();
    for (Request& request : requests) engine_.Submit(std::move(request));
    for (std::int64_t left = rows; left > 0;) {
      MS_ASSIGN_OR_RETURN(const auto completions, engine_.Poll(Deadline::max(), stop_));
      if (stop_.stop_requested()) return Status::Cancelled("stopped");
      for (const Completion& completion : completions) {
        if (completion.reason == FinishReason::kError) {
          return Status::Invalid(
              "a row failed: ", completion.error_code, ": ", completion.error_message
          );
        }
        RequestTokens& count = counts[static_cast<std::size_t>(completion.id)];
        count.output = completion.completion_tokens;
        measured.prompt_tokens += count.prompt;
        measured.output_tokens += count.output;
        --left;
      }
    }
    measured.seconds += SecondsSince(begin);
    measured.rows += rows;
    measured.limit_seconds += LimitOf(cost_, peaks_, counts, rows_max_).all();
    return Status::OK();
  }

  Request MakeRequest(RequestId id, std::int64_t prompt_tokens, std::int64_t output_tokens) {
    Request request;
    request.id = id;
    for (std::int64_t i = 0; i < prompt_tokens; ++i) {
      const std::uint64_t token = RandomBits({}, drawn_++) % vocabulary_;
      request.prompt_tokens.push_back(static_cast<std::int32_t>(token));
    }
    request.sampling.max_tokens = output_tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    // No token, and another for each request: equal prompts would be computed once.
    request.sampling.stop_token_ids = {-1 - static_cast<std::int32_t>(id)};
    return request;
  }

  Engine& engine_;
  const std::uint64_t vocabulary_;
  const TokenCost cost_;
  const kernels::Peaks peaks_;
  const std::int64_t rows_max_;
  const std::stop_token stop_;
  std::uint64_t drawn_ = 0;
};

/// Fills in the shape of a row.
Status Shape(std::int64_t context, const BenchmarkOptions& options, BenchmarkReport& report) {
  const std::int64_t prompt_least = std::max<std::int64_t>(1, options.prompt_tokens);
  report.output_tokens = options.output_tokens;
  if (report.output_tokens == 0) {
    report.output_tokens =
        std::max<std::int64_t>(1, std::min(kOutputTokens, (context - prompt_least + 1) / 2));
  }
  report.prompt_tokens = options.prompt_tokens;
  if (report.prompt_tokens == 0) {
    report.prompt_tokens = std::min(kPromptTokens, context - report.output_tokens);
  }
  // As differences: a sum of what was given might overflow.
  if (report.prompt_tokens < 1 || report.output_tokens < 1 || report.prompt_tokens > context ||
      report.output_tokens > context - report.prompt_tokens) {
    return Status::Invalid(
        "rows of ",
        report.prompt_tokens,
        " prompt and ",
        report.output_tokens,
        " output tokens do not fit the model's context of ",
        context,
        ": ask for fewer"
    );
  }
  return Status::OK();
}

std::int64_t RowsIn(double seconds, double row_seconds, std::int64_t most) {
  const double rows = seconds / std::max(row_seconds, 1e-9);
  return std::clamp<std::int64_t>(
      static_cast<std::int64_t>(std::min(rows, static_cast<double>(most))), 1, most
  );
}

Status Measure(
    Bench& bench,
    std::int64_t context,
    std::int64_t rows_max,
    const std::function<void(const std::string&)>& say,
    BenchmarkReport& report
) {
  MS_RETURN_NOT_OK(bench.Run(1, 1, 1, 0).status());  // memory is touched for the first time
  say("measuring prompts");
  const std::int64_t prompts = (kPromptRun + report.prompt_tokens - 1) / report.prompt_tokens;
  MS_ASSIGN_OR_RETURN(report.prompts, bench.Run(prompts, report.prompt_tokens, 1, kPromptSeconds));
  const double token_seconds =
      report.prompts.seconds / static_cast<double>(report.prompts.prompt_tokens);
  say("measuring one answer");
  const std::int64_t answer = std::min(kAnswerRun, context - 1);
  MS_ASSIGN_OR_RETURN(report.one_answer, bench.Run(1, 1, answer, kOneAnswerSeconds));
  say("measuring a batch of answers");
  const std::int64_t batch =
      RowsIn(kAnswerSeconds, token_seconds * static_cast<double>(answer), rows_max);
  MS_ASSIGN_OR_RETURN(report.answers, bench.Run(batch, 1, answer, 0));
  say("measuring rows");
  const double row_seconds = token_seconds * static_cast<double>(report.prompt_tokens) +
                             report.answers.seconds /
                                 static_cast<double>(report.answers.output_tokens) *
                                 static_cast<double>(report.output_tokens);
  const std::int64_t rows = RowsIn(kRowSeconds, row_seconds, kRowsMax);
  MS_ASSIGN_OR_RETURN(report.rows, bench.Run(rows, report.prompt_tokens, report.output_tokens, 0));
  return Status::OK();
}

}  // namespace

Result<BenchmarkReport> RunBenchmark(
    const std::string& path,
    const BenchmarkOptions& options,
    const std::function<void(const std::string&)>& say,
    std::stop_token stop
) {
  BenchmarkReport report;
  say("loading the model");
  const auto begin = Clock::now();
  MS_ASSIGN_OR_RETURN(const auto model, OpenLanguageModel(path, ""));
  MS_RETURN_NOT_OK(Shape(model->context, options, report));
  MS_ASSIGN_OR_RETURN(const auto engine, MakeNativeEngine(model, options.engine));
  report.load_seconds = SecondsSince(begin);

  say("measuring what the machine can do");
  const Compute compute =
      ResolveCompute(options.engine.compute, options.engine.isa, *model->checkpoint);
  const auto isa = kernels::IsaByName(InstructionSet(options.engine.isa));
  MS_CHECK(isa.has_value());  // the engine has it
  report.compute = ComputeName(compute);
  report.isa = kernels::IsaName(*isa);
  report.threads = options.engine.threads > 0 ? options.engine.threads : UsableCores();
  {
    kernels::Team team(report.threads);
    report.peaks = kernels::MeasurePeaks(*isa, team, AvailableMemoryBytes() / 4);
  }
  if (report.peaks.bytes_per_second <= 0) {
    return Status::OutOfMemory("not enough memory to measure how fast it is read");
  }

  const ModelConfig& config = model->checkpoint->config();
  const std::int64_t rows_max = options.engine.max_sequences;
  const TokenCost cost = CostOf(config, StoredWeightBytes(*model->checkpoint), compute);
  Bench bench(*engine, config, cost, report.peaks, rows_max, stop);
  MS_RETURN_NOT_OK(Measure(bench, model->context, rows_max, say, report));
  return report;
}

}  // namespace millstream
