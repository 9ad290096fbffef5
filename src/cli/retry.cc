// SPDX-License-Identifier: Apache-2.0
#include "job/retry.h"

#include <memory>

#include "cli/commands.h"
#include "cli/print.h"
#include "fmt/format.h"

namespace millstream {
namespace {

struct RetryFlags {
  RetryOptions retry;
  std::vector<std::string> vars, sets;
  std::string progress = "auto";
  bool prune = false;
};

void PrintRetry(const RetryReport& report, bool dry_run) {
  std::string codes;
  for (const auto& [code, count] : report.codes) {
    codes += fmt::format("{}{} x {}", codes.empty() ? "" : ", ", Grouped(count), code);
  }
  if (!report.nothing.empty() || dry_run) {
    fmt::print(
        stderr,
        "{} rows chosen{}: {}\n",
        Grouped(report.chosen),
        codes.empty() ? "" : " (" + codes + ")",
        report.nothing.empty() ? "these would be run again. Nothing was written." : report.nothing
    );
    return;
  }
  fmt::print(
      stderr,
      "{}: {} of {} rows ({}) are better now, in {} replaced parts\n",
      report.exit == ExitCode::kStopped ? "stopped; retry again to go on" : "done",
      Grouped(report.gained),
      Grouped(report.chosen),
      codes,
      Grouped(report.parts_replaced)
  );
  for (const auto& [code, sample] : report.errors) {
    fmt::print(stderr, "  {} x {}: {}\n", Grouped(sample.count), code, sample.example);
  }
  fmt::print(
      stderr,
      "output: {} ({} ok, {} error, {} skipped)\n",
      report.output,
      Grouped(report.rows.ok),
      Grouped(report.rows.error),
      Grouped(report.rows.skipped)
  );
}

int RunRetry(RetryFlags& flags, CommandContext& context) {
  if (!SplitPairs(flags.vars, &flags.retry.vars) || !SplitPairs(flags.sets, &flags.retry.sets)) {
    return 1;
  }
  auto storage = MakeStorage(context.stop);
  if (flags.prune) {
    const Status pruned = PruneOutput(*storage, flags.retry.output);
    return pruned.ok() ? 0 : Complain(pruned);
  }
  flags.retry.drain = context.drain;
  const ProgressStyle style = flags.progress == "none" || context.quiet ? ProgressStyle::kNone
                              : flags.progress == "json"                ? ProgressStyle::kJson
                                                                        : ProgressStyle::kAuto;
  const Say say = SayToPerson;
  JobMonitor monitor;
  const Result<RetryReport> report = [&] {
    ProgressPrinter printer(monitor, style);
    return RetryRows(*storage, flags.retry, monitor, say, context.stop);
  }();
  if (!report.ok()) return Complain(report.status());
  PrintRetry(*report, flags.retry.dry_run);
  return static_cast<int>(report->exit);
}

}  // namespace

void AddRetry(CLI::App& app, CommandContext& context) {
  auto flags = std::make_shared<RetryFlags>();
  CLI::App* retry =
      app.add_subcommand("retry", "Run failed rows of an output again, with what mends them");
  retry->add_option("output", flags->retry.output, "The output folder or file")
      ->required()
      ->type_name("OUT");
  retry->add_option("job", flags->retry.file, "A mended job file (default: that of the rows)")
      ->type_name("JOB.yaml");
  retry
      ->add_option(
          "--set", flags->sets, "Override a key, steps by id: --set steps.answer.max_tokens=80"
      )
      ->type_name("PATH=YAML");
  retry->add_option("--var", flags->vars, "Give a variable of the job file")
      ->type_name("NAME=VALUE");
  retry
      ->add_option(
          "--where",
          flags->retry.where,
          "Which rows: an error code, or an expression over a row's columns, which reaches ok rows "
          "too (default: all failed rows)"
      )
      ->type_name("CODE|EXPRESSION");
  retry->add_flag("--reseed", flags->retry.reseed, "Draw other random numbers");
  retry->add_flag("--dry-run", flags->retry.dry_run, "Say which rows it would be; write nothing");
  retry->add_flag("--prune", flags->prune, "Remove the parts that earlier retries replaced, alone");
  retry->add_option("--progress", flags->progress, "auto, json (events on stderr) or none")
      ->check(CLI::IsMember({"auto", "json", "none"}));
  retry->footer(
      "Examples:\n"
      "  millstream retry out/glosses --dry-run\n"
      "  millstream retry out/glosses --where context_overflow --set "
      "'steps.answer.on_overflow={truncate: [text]}'\n"
      "  millstream retry out/glosses --where \"{{ answer_meta.finish_reason == 'length' }}\" "
      "--set steps.answer.max_tokens=512\n"
      "Parts that gain are replaced whole; the old ones stay in the state folder until --prune."
  );
  retry->callback([flags, &context] { context.exit_code = RunRetry(*flags, context); });
}

}  // namespace millstream
