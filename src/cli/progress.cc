// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/compact_json.h"
#include "cli/print.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

std::string Duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole >= 3600) return fmt::format("{}h{:02d}m", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return fmt::format("{}m{:02d}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

struct Rates {
  double rows = 0, prompt_tokens = 0, output_tokens = 0;
  std::string left = "?";
};

Rates RatesOf(const JobMonitor::Progress& progress, double seconds) {
  Rates rates;
  if (seconds <= 0) return rates;
  rates.rows =
      static_cast<double>(progress.rows_finished() - progress.rows_before.total()) / seconds;
  rates.prompt_tokens = static_cast<double>(progress.tokens.prompt_tokens) / seconds;
  rates.output_tokens = static_cast<double>(progress.tokens.completion_tokens) / seconds;
  if (rates.rows > 0) {
    rates.left =
        Duration(static_cast<double>(progress.rows_total - progress.rows_finished()) / rates.rows);
  }
  return rates;
}

std::string Line(const JobMonitor::Progress& progress, const Rates& rates) {
  std::string line = fmt::format(
      "{}/{} rows  {} ok {} error {} skipped  {:.1f} rows/s",
      Grouped(progress.rows_finished()),
      Grouped(progress.rows_total),
      Grouped(progress.rows.ok),
      Grouped(progress.rows.error),
      Grouped(progress.rows.skipped),
      rates.rows
  );
  if (progress.tokens.prompt_tokens > 0) {
    line += fmt::format(
        "  {:.0f} prompt + {:.0f} output tokens/s", rates.prompt_tokens, rates.output_tokens
    );
  }
  return line + "  " + rates.left + " left";
}

// A bar and its line, or what of the line fits: a wrapped one could not be written over.
std::string Bar(const JobMonitor::Progress& progress, const Rates& rates, std::size_t width) {
  constexpr std::int64_t kBarWidth = 24;
  const std::int64_t full = progress.rows_finished() * kBarWidth / progress.rows_total;
  std::string line = Line(progress, rates);
  const std::string bar = fmt::format(
      "[{}{}] ",
      std::string(static_cast<std::size_t>(full), '#'),
      std::string(static_cast<std::size_t>(kBarWidth - full), '.')
  );
  if (bar.size() + line.size() < width) line.insert(0, bar);
  return line.substr(0, width - 1);
}

using Json = nlohmann::ordered_json;

// One line, whatever bytes a message took over from a file.
void PrintEvent(const Json& event) {
  fmt::print(stderr, "{}\n", CompactJson(event));
}

Json EngineJson(const EngineStats& engine) {
  const auto seconds = [](std::int64_t time) { return static_cast<double>(time) / 1e9; };
  return {
      {"steps", engine.steps},
      {"computed_tokens", engine.computed_tokens},
      {"cached_tokens", engine.cached_tokens},
      {"preemptions", engine.preemptions},
      {"products_seconds", seconds(engine.products_time)},
      {"attention_seconds", seconds(engine.attention_time)},
      {"head_seconds", seconds(engine.head_time)},
      {"sampling_seconds", seconds(engine.sampling_time)},
      {"rest_seconds", seconds(engine.rest_time)},
      {"idle_seconds", seconds(engine.idle_time)}
  };
}

void PrintJson(const JobMonitor::Progress& progress, const Rates& rates, double seconds) {
  PrintEvent(
      {{"event", "progress"},
       {"seconds", seconds},
       {"rows_total", progress.rows_total},
       {"ok", progress.rows.ok},
       {"error", progress.rows.error},
       {"skipped", progress.rows.skipped},
       {"in_hand", progress.rows_in_hand},
       {"rows_per_second", rates.rows},
       {"prompt_tokens", progress.tokens.prompt_tokens},
       {"completion_tokens", progress.tokens.completion_tokens},
       {"engine", EngineJson(progress.tokens)}}
  );
}

}  // namespace

std::string Grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string grouped;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

void PrintSummaryEvent(const JobReport& report) {
  Json errors = Json::object();
  for (const auto& [code, sample] : report.errors) {
    errors[code] = {{"count", sample.count}, {"example", sample.example}};
  }
  PrintEvent(
      {{"event", "end"},
       {"exit_code", static_cast<int>(report.exit)},
       {"seconds", report.seconds},
       {"ok", report.rows.ok},
       {"error", report.rows.error},
       {"skipped", report.rows.skipped},
       {"prompt_tokens", report.tokens.prompt_tokens},
       {"completion_tokens", report.tokens.completion_tokens},
       {"engine", EngineJson(report.tokens)},
       {"cost", report.tokens.cost},
       {"cut_answers", report.cut_answers},
       {"runaways", report.tokens.runaways},
       {"shared_requests", report.tokens.shared_requests},
       {"engine_restarts", report.tokens.restarts},
       {"workers_lost", report.tokens.workers_lost},
       {"rows_crashed", report.tokens.requests_crashed},
       {"rows_hung", report.tokens.requests_hung},
       {"rows_out_of_memory", report.tokens.requests_out_of_memory},
       {"errors", std::move(errors)},
       {"output", report.output}}
  );
}

ProgressPrinter::ProgressPrinter(const JobMonitor& monitor, ProgressStyle style)
    : monitor_(monitor), style_(style) {
  if (style_ != ProgressStyle::kNone) {
    thread_ = std::jthread([this](std::stop_token stop) { Loop(stop); });
  }
}

ProgressPrinter::~ProgressPrinter() = default;

void ProgressPrinter::Loop(std::stop_token stop) {
  const bool bar = style_ == ProgressStyle::kAuto && isatty(STDERR_FILENO) != 0;
  const auto start = Clock::now();
  auto next_line = start + std::chrono::seconds(10);
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  while (true) {
    const auto tick = bar ? std::chrono::milliseconds(250) : std::chrono::milliseconds(1000);
    changed.wait_for(lock, stop, tick, [&] { return stop.stop_requested(); });
    const JobMonitor::Progress progress = monitor_.progress();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const Rates rates = RatesOf(progress, seconds);
    if (style_ == ProgressStyle::kJson) {
      PrintJson(progress, rates, seconds);
    } else if (bar && progress.rows_total > 0) {
      fmt::print(stderr, "\r\033[K{}", Bar(progress, rates, TerminalWidth(STDERR_FILENO)));
      std::fflush(stderr);
    } else if (!bar && !stop.stop_requested() && Clock::now() >= next_line &&
               progress.rows_total > 0) {
      fmt::print(stderr, "{}\n", Line(progress, rates));
      next_line = Clock::now() + std::chrono::seconds(10);
    }
    if (stop.stop_requested()) break;
  }
  if (bar) fmt::print(stderr, "\r\033[K");
}

}  // namespace millstream
