// SPDX-License-Identifier: Apache-2.0
// What looks at an output: status, verify, errors.
#include <ctime>
#include <memory>

#include "arrow/io/stdio.h"
#include "base/compact_json.h"
#include "cli/commands.h"
#include "cli/print.h"
#include "fmt/chrono.h"
#include "fmt/format.h"
#include "job/status.h"
#include "job/verify.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// One line, whatever bytes a message took over from a file.
void PrintJson(const Json& json) {
  fmt::print("{}\n", CompactJson(json));
}

int ComplainInJson(const Status& status) {
  const int code = static_cast<int>(ExitCodeOf(status));
  PrintJson({{"exit_code", code}, {"message", status.message()}});
  return code;
}

struct Flags {
  std::string output;
  bool json = false;
  VerifyOptions verify;
};

int Verify(const Flags& flags, const std::stop_token& stop) {
  auto storage = MakeStorage(stop);
  const auto found = VerifyOutput(*storage, flags.output, flags.verify);
  if (!found.ok()) return flags.json ? ComplainInJson(found.status()) : Complain(found.status());
  if (flags.json) {
    Json json = {
        {"exit_code", 0},
        {"rows", found->counts.total()},
        {"ok", found->counts.ok},
        {"error", found->counts.error},
        {"skipped", found->counts.skipped},
        {"parts", found->parts},
        {"complete", found->complete},
        {"rows_missing", found->rows_missing}
    };
    if (flags.verify.digest) json["digest"] = found->digest;
    PrintJson(json);
    return 0;
  }
  fmt::print(
      "{} rows: {} ok, {} error, {} skipped in {} parts{}\n",
      Grouped(found->counts.total()),
      Grouped(found->counts.ok),
      Grouped(found->counts.error),
      Grouped(found->counts.skipped),
      Grouped(found->parts),
      found->complete ? "" : fmt::format("; {} rows are not done yet", Grouped(found->rows_missing))
  );
  if (flags.verify.digest) fmt::print("digest {}\n", found->digest);
  return 0;
}

Json ErrorsToJson(const std::map<std::string, ErrorGroup>& errors) {
  Json json = Json::object();
  for (const auto& [code, group] : errors) {
    json[code] = {{"count", group.count}, {"samples", group.samples}};
  }
  return json;
}

std::string StateOf(const JobStatus& status) {
  return !status.holder.empty() ? "running" : status.complete ? "complete" : "stopped";
}

void PrintStatusAsJson(const JobStatus& status) {
  PrintJson(
      {{"output", status.output},
       {"name", status.name},
       {"state", StateOf(status)},
       {"holder", status.holder},
       {"resumable", !status.complete && status.holder.empty()},
       {"rows_total", status.rows_total},
       {"ok", status.rows.ok},
       {"error", status.rows.error},
       {"skipped", status.rows.skipped},
       {"rows_in_log", status.rows_in_log},
       {"parts", status.parts},
       {"splits", status.splits},
       {"drivers", status.drivers},
       {"first_at", status.first_at},
       {"last_at", status.last_at},
       {"rows_per_second", status.rows_per_second},
       {"last_end", status.last_end},
       {"errors", ErrorsToJson(status.errors)}}
  );
}

void PrintStatus(const JobStatus& status) {
  fmt::print("{}: {}\n", status.output, StateOf(status));
  if (!status.holder.empty()) fmt::print("  by {}\n", status.holder);
  fmt::print(
      "  {} of {} rows: {} ok, {} error, {} skipped; {} of {} parts\n",
      Grouped(status.rows.total()),
      Grouped(status.rows_total),
      Grouped(status.rows.ok),
      Grouped(status.rows.error),
      Grouped(status.rows.skipped),
      Grouped(status.parts),
      Grouped(status.splits)
  );
  if (status.rows_in_log > 0) {
    fmt::print("  {} more rows in the row log\n", Grouped(status.rows_in_log));
  }
  if (status.last_at > 0) {
    const auto at = static_cast<std::time_t>(status.last_at);
    fmt::print(
        "  {} driver{}, the last seen {:%Y-%m-%d %H:%M:%S} UTC",
        status.drivers,
        status.drivers == 1 ? "" : "s",
        fmt::gmtime(at)
    );
    if (status.rows_per_second > 0) fmt::print(", {:.1f} rows/s", status.rows_per_second);
    fmt::print("\n");
  }
  if (status.holder.empty() && !status.complete) {
    fmt::print("  {}; run the same command again to resume\n", status.last_end);
  }
  for (const auto& [code, group] : status.errors) {
    fmt::print("  {} x {}\n", Grouped(group.count), code);
    for (const std::string& sample : group.samples) fmt::print("      {}\n", sample);
  }
}

int ShowStatus(const Flags& flags, const std::stop_token& stop) {
  auto storage = MakeStorage(stop);
  const auto status = StatusOf(*storage, flags.output);
  if (!status.ok()) return flags.json ? ComplainInJson(status.status()) : Complain(status.status());
  if (flags.json) {
    PrintStatusAsJson(*status);
  } else {
    PrintStatus(*status);
  }
  return 0;
}

int ShowErrors(const Flags& flags, const std::stop_token& stop) {
  auto storage = MakeStorage(stop);
  if (flags.json) {
    const auto status = StatusOf(*storage, flags.output);
    if (!status.ok()) return ComplainInJson(status.status());
    PrintJson({{"error", status->rows.error}, {"codes", ErrorsToJson(status->errors)}});
    return 0;
  }
  const auto count =
      WriteErrors(*storage, flags.output, std::make_shared<arrow::io::StdoutStream>());
  return count.ok() ? 0 : Complain(count.status());
}

CLI::App* AddLook(
    CLI::App& app,
    CommandContext& context,
    const std::string& name,
    const std::string& help,
    const std::string& json_help,
    const std::shared_ptr<Flags>& flags,
    int (*show)(const Flags&, const std::stop_token&)
) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("output", flags->output, "The output folder or file")
      ->required()
      ->type_name("OUT");
  command->add_flag("--json", flags->json, json_help);
  command->callback([flags, &context, show] { context.exit_code = show(*flags, context.stop); });
  return command;
}

}  // namespace

void AddOutputCommands(CLI::App& app, CommandContext& context) {
  auto flags = std::make_shared<Flags>();
  AddLook(
      app,
      context,
      "status",
      "Show what stands of a job: rows, rates, failures by code",
      "One JSON object, for machines",
      flags,
      ShowStatus
  )
      ->footer("Example:\n  millstream status out/glosses");
  CLI::App* verify = AddLook(
      app,
      context,
      "verify",
      "Recompute an output's account from its files",
      "One JSON object, for machines",
      flags,
      Verify
  );
  verify->add_flag(
      "--digest",
      flags->verify.digest,
      "Print one hash of the row data, the same for every format and part size"
  );
  verify->add_flag(
      "--deep", flags->verify.deep, "Check every part's hash and every record of the state as well"
  );
  verify->footer(
      "Examples:\n  millstream verify out/glosses --digest\n  millstream verify out/glosses "
      "--deep\nExit codes: 0 all is as it was committed, 4 it is not: the message says where."
  );
  AddLook(
      app,
      context,
      "errors",
      "Print the failed rows with their reasons, one JSON object a line",
      "One JSON object with counts and samples by code, in place of the rows",
      flags,
      ShowErrors
  )
      ->footer(
          "Examples:\n  millstream errors out/glosses > failed.jsonl\n  millstream errors "
          "out/glosses --json"
      );
}

}  // namespace millstream
