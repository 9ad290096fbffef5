// SPDX-License-Identifier: Apache-2.0
#include "job/cluster_wire.h"

#include <filesystem>
#include <utility>

#include "engine/engine.h"
#include "engine/wire.h"
#include "job/wire_values.h"
#include "job/worker_wire.h"
#include "pipeline/parse_spec.h"
#include "storage/path.h"

namespace millstream {
namespace {

constexpr std::uint8_t kVersion = 1;

Status Foreign(const char* what) {
  return Status::Invalid(what, " that is none of this version of Millstream");
}

}  // namespace

std::string EncodeJob(const JobSpec& spec, const JobOptions& options) {
  JobOptions absolute = options;
  absolute.file = spec.file;
  absolute.text = spec.text;
  std::string& output = absolute.overrides.output;
  if (!output.empty() && !IsObjectPath(output)) {
    output = std::filesystem::absolute(output).lexically_normal().string();
  }
  WireWriter out;
  out.U8(kVersion);
  WorkerOptions worker;
  worker.job = std::move(absolute);
  out.Text(Encode(worker));
  out.Bool(options.restart);
  out.Bool(options.append);
  out.Texts(options.accept_changes);
  out.I64(options.limit);
  out.Bool(options.spread);
  return out.Take();
}

Result<JobOptions> DecodeJob(std::string_view bytes) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("a job");
  const std::string worker = in.Text();
  MS_ASSIGN_OR_RETURN(WorkerOptions decoded, DecodeWorkerOptions(worker));
  JobOptions options = std::move(decoded.job);
  options.restart = in.Bool();
  options.append = in.Bool();
  options.accept_changes = in.Texts();
  options.limit = in.I64();
  options.spread = in.Bool();
  if (!in.Finish().ok()) return Foreign("a job");
  return options;
}

std::string EncodeShown(const JobMonitor& monitor) {
  const JobMonitor::Progress progress = monitor.progress();
  WireWriter out;
  out.U8(kVersion);
  out.I64(progress.rows_total);
  Put(out, progress.rows);
  out.I64(progress.rows_in_hand);
  Put(out, progress.rows_before);
  WriteStats(progress.tokens, out);
  Put(out, monitor.errors());
  out.I64(monitor.cut_answers);
  return out.Take();
}

Status DecodeShown(std::string_view bytes, JobMonitor& monitor) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("a job's progress");
  JobMonitor::Progress progress;
  progress.rows_total = in.I64();
  progress.rows = TakeCounts(in);
  progress.rows_in_hand = in.I64();
  progress.rows_before = TakeCounts(in);
  progress.tokens = ReadStats(in);
  ErrorSamples errors = TakeErrors(in);
  const std::int64_t cut_answers = in.I64();
  if (!in.Finish().ok()) return Foreign("a job's progress");
  monitor.Show(progress, std::move(errors));
  monitor.cut_answers = cut_answers;
  return Status::OK();
}

std::string EncodeEnd(const Result<JobReport>& report) {
  WireWriter out;
  out.U8(kVersion);
  out.Bool(report.ok());
  if (!report.ok()) {
    out.U8(static_cast<std::uint8_t>(ExitCodeOf(report.status())));
    out.Text(report.status().message());
    return out.Take();
  }
  out.U8(static_cast<std::uint8_t>(report->exit));
  out.Text(report->output);
  Put(out, report->rows);
  Put(out, report->rows_before);
  Put(out, report->errors);
  WriteStats(report->tokens, out);
  out.I64(report->cut_answers);
  out.F64(report->seconds);
  out.Bool(report->had_nothing_to_do);
  out.Text(report->why_stopped);
  return out.Take();
}

Result<JobReport> DecodeEnd(std::string_view bytes) {
  WireReader in(bytes);
  if (in.U8() != kVersion) return Foreign("a job's end");
  const bool is_ok = in.Bool();
  const auto exit = static_cast<ExitCode>(in.U8());
  if (!is_ok) {
    std::string message = in.Text();
    return in.Finish().ok() ? FailureOf(exit, std::move(message)) : Foreign("a job's end");
  }
  JobReport report;
  report.exit = exit;
  report.output = in.Text();
  report.rows = TakeCounts(in);
  report.rows_before = TakeCounts(in);
  report.errors = TakeErrors(in);
  report.tokens = ReadStats(in);
  report.cut_answers = in.I64();
  report.seconds = in.F64();
  report.had_nothing_to_do = in.Bool();
  report.why_stopped = in.Text();
  if (!in.Finish().ok()) return Foreign("a job's end");
  return report;
}

Status DecodeFailure(std::string_view bytes) {
  WireReader in(bytes);
  const auto exit = static_cast<ExitCode>(in.U8());
  return FailureOf(exit, std::string(bytes.substr(bytes.empty() ? 0 : 1)));
}

}  // namespace millstream
