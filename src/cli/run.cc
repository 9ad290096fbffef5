// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <memory>

#include "cli/commands.h"
#include "cli/print.h"
#include "cli/run_flags.h"
#include "fmt/format.h"
#include "job/inspect.h"

namespace millstream {
namespace {

int ShowPreview(
    const RunFlags& flags,
    Storage& storage,
    JobMonitor& monitor,
    const Say& say,
    ProgressStyle style,
    std::stop_token stop
) {
  const Result<Preview> preview = [&] {
    ProgressPrinter printer(monitor, style);
    return RunPreview(storage, flags.job, monitor, say, stop);
  }();
  if (!preview.ok()) return Complain(preview.status());
  PrintTable(*preview->schema, preview->rows, flags.job.limit);
  const auto rows = static_cast<double>(preview->counts.total());
  fmt::print(
      stderr,
      "{} ok, {} error, {} skipped in {:.1f} s ({:.1f} rows/s)",
      preview->counts.ok,
      preview->counts.error,
      preview->counts.skipped,
      preview->seconds,
      rows / preview->seconds
  );
  fmt::print(
      stderr,
      "; all {} rows would take about {:.0f} s. Nothing was written.\n",
      Grouped(preview->rows_in_input),
      static_cast<double>(preview->rows_in_input) * preview->seconds / std::max(rows, 1.0)
  );
  return static_cast<int>(ExitCode::kComplete);
}

}  // namespace

int RunWithFlags(RunFlags& flags, CommandContext& context) {
  context.drain_seconds = flags.drain_seconds;
  flags.job.drain = context.drain;
  if (!SplitPairs(flags.vars, &flags.job.overrides.vars) ||
      !SplitPairs(flags.sets, &flags.job.overrides.sets)) {
    return 1;
  }
  const ProgressStyle style = flags.progress == "json"                    ? ProgressStyle::kJson
                              : flags.progress == "none" || context.quiet ? ProgressStyle::kNone
                                                                          : ProgressStyle::kAuto;
  const Say say = SayToPerson;
  auto storage = MakeStorage(context.stop);
  JobMonitor monitor;
  if (flags.dry_run) {
    auto text = DescribeJob(*storage, flags.job, say, context.stop);
    if (!text.ok()) return Complain(text.status());
    fmt::print("{}", *text);
    return 0;
  }
  if (!flags.row.empty()) {
    auto row = ExplainRow(*storage, flags.job, flags.row, monitor, say, context.stop);
    if (!row.ok()) return Complain(row.status());
    if (!row->prompt.empty()) fmt::print("prompt, as the model saw it:\n{}\n", row->prompt);
    PrintRecords(*row->preview.schema, row->preview.rows);
    return 0;
  }
  if (flags.job.limit > 0 && flags.job.overrides.output.empty()) {
    return ShowPreview(flags, *storage, monitor, say, style, context.stop);
  }
  const Result<JobReport> report = [&] {
    ProgressPrinter printer(monitor, style);
    if (flags.on_ray) return RunOnRay(flags, monitor, say, context.stop);
    return RunJob(*storage, flags.job, monitor, say, context.stop);
  }();
  if (!report.ok()) return Complain(report.status());
  if (style == ProgressStyle::kJson) {
    PrintSummaryEvent(*report);
  } else {
    PrintSummary(*report);
  }
  return static_cast<int>(report->exit);
}

CLI::Validator AtLeastOne() {
  return {
      [](std::string& text) {
        std::int64_t count = 0;
        const char* end = text.data() + text.size();
        const bool is_number = std::from_chars(text.data(), end, count).ptr == end;
        return is_number && count >= 1
                   ? std::string()
                   : fmt::format("must be a whole number, at least 1, not {}", text);
      },
      ""
  };
}

CLI::Validator NotEmpty() {
  return {
      [](std::string& text) { return text.empty() ? std::string("is empty") : std::string(); }, ""
  };
}

CLI::Option* AddRunFlags(CLI::App& run, RunFlags& flags) {
  run.add_option(
         "--set", flags.sets, "Override a key, steps by id: --set steps.answer.max_tokens=8"
  )
      ->type_name("PATH=YAML");
  run.add_flag(
      "--restart", flags.job.restart, "Start anew: moves the old output and its state aside"
  );
  run.add_flag("--append", flags.job.append, "Take in input that came since the job was planned");
  run.add_option(
         "--accept-change",
         flags.job.accept_changes,
         "Go on with a changed field of the job file; rows that are done keep the old one"
  )
      ->type_name("FIELD");
  run.add_option(
         "--drain-seconds",
         flags.drain_seconds,
         "Time to end in after a SIGTERM: rows in the model finish if they can (default: 25)"
  )
      ->type_name("N")
      ->check(AtLeastOne());
  run.add_option("--progress", flags.progress, "auto, json (events on stderr, one a line) or none")
      ->check(CLI::IsMember({"auto", "json", "none"}));
  return run.add_flag(
      "--dry-run", flags.dry_run, "Check everything and show the plan; write nothing"
  );
}

void AddRun(CLI::App& app, CommandContext& context) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* run = app.add_subcommand("run", "Run a job file; run it again to resume");
  run->add_option("job", flags->job.file, "The job file")->required()->type_name("JOB.yaml");
  auto* dry_run = AddRunFlags(*run, *flags);
  run->add_option("--var", flags->vars, "Give a variable of the job file: --var lang=French")
      ->type_name("NAME=VALUE");
  run->add_option("--output", flags->job.overrides.output, "Write elsewhere than the job file says")
      ->take_last()
      ->type_name("PATH")
      ->check(NotEmpty());
  auto* limit = run->add_option(
                       "--limit",
                       flags->job.limit,
                       "Only so many rows: a preview, printed unless --output is given"
  )
                    ->type_name("N")
                    ->check(AtLeastOne());
  run->add_flag("--sample", flags->job.spread, "With --limit: rows spread over the whole input")
      ->needs(limit);
  run->add_option("--row", flags->row, "Run and explain one row; writes nothing")
      ->type_name("FILE:RECORD")
      ->excludes(limit)
      ->excludes(dry_run);
  run->add_option(
         "--threads",
         flags->job.runner.threads,
         "Threads of jobs without a model (default: all cores)"
  )
      ->check(AtLeastOne());
  run->add_option(
         "--batch-rows", flags->job.runner.batch_rows, "Rows of a batch (changes no result)"
  )
      ->check(AtLeastOne());
  run->add_option(
         "--workers",
         flags->job.workers,
         "Processes on this machine that share the rows (default: this one alone)"
  )
      ->type_name("N")
      ->check(AtLeastOne());
  AddRayFlags(*run, *flags);
  run->footer(
      "Examples:\n"
      "  millstream run job.yaml\n"
      "  millstream run job.yaml --dry-run\n"
      "  millstream run job.yaml --limit 20 --sample\n"
      "  millstream run job.yaml --row data.jsonl:17\n"
      "  millstream run job.yaml --set steps.answer.temperature=0.7 --output out/warm\n"
      "  millstream run job.yaml --ray\n"
      "Exit codes: 0 complete, 1 wrong command or job file, 2 too many row errors, 3 broken "
      "engine, 4 conflict, 75 "
      "stopped (resumable)."
  );
  run->callback([flags, &context] { context.exit_code = RunWithFlags(*flags, context); });
}

}  // namespace millstream
