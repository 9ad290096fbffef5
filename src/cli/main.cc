// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <thread>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "arrow/compute/initialize.h"
#include "base/log.h"
#include "base/nearest.h"
#include "cli/commands.h"
#include "fmt/format.h"
#include "job/job.h"
#include "storage/object_file.h"

namespace millstream {
namespace {

#ifdef MS_NO_SYNC
constexpr bool kSyncs = false;
#else
constexpr bool kSyncs = true;
#endif

// Waits for a signal until `deadline`; 0 if none came.
int NextSignal(const sigset_t& signals, std::chrono::steady_clock::time_point deadline) {
  const auto left = std::max(deadline - std::chrono::steady_clock::now(), {});
  const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
  const timespec wait{
      static_cast<std::time_t>(seconds.count()),
      static_cast<long>(std::chrono::nanoseconds(left - seconds).count())
  };
  return std::max(sigtimedwait(&signals, nullptr, &wait), 0);
}

// Signals are waited for on a thread of their own, so that a stop is a plain request and no code
// runs in a handler. SIGINT stops; SIGTERM begins no more rows, and stops when its time is nearly
// over or with the next signal; a signal after a stop does not wait.
void WatchSignals(
    const std::stop_source& stop, const std::stop_source& drain, const CommandContext& context
) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, stop, drain, &context]() mutable {
    int number = 0;
    sigwait(&signals, &number);
    if (number == SIGTERM) {
      drain.request_stop();
      // What is left is for what the engine is cut short in, and for the last parts.
      const auto whole = std::chrono::milliseconds(context.drain_seconds * 1000);
      const auto reserve = std::min<std::chrono::milliseconds>(std::chrono::seconds(8), whole / 3);
      (void)NextSignal(signals, std::chrono::steady_clock::now() + whole - reserve);
    }
    stop.request_stop();
    sigwait(&signals, &number);
    std::_Exit(static_cast<int>(ExitCode::kStopped));
  }).detach();
}

// No command, or one that there is not: `given` is what stands on the line instead.
int NoCommand(const CLI::App& app, const std::vector<std::string>& given) {
  if (given.empty()) {
    fmt::print(stderr, "{}", app.help());
    return static_cast<int>(ExitCode::kWrong);
  }
  if (given.front().starts_with('-')) {
    fmt::print(
        stderr, "millstream: {} goes after the command; see `millstream --help`\n", given.front()
    );
    return static_cast<int>(ExitCode::kWrong);
  }
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) names.push_back(command->get_name());
  }
  fmt::print(
      stderr, "millstream: no command '{}'{}\n", given.front(), DidYouMean(given.front(), names)
  );
  return static_cast<int>(ExitCode::kWrong);
}

std::string FailureMessage(const CLI::App* app, const CLI::Error& error) {
  std::string command = "millstream";
  for (const CLI::App* given : app->get_subcommands()) command += " " + given->get_name();
  return fmt::format("{}: {}; see `{} --help`\n", command, error.what(), command);
}

int Main(int argc, char** argv) {
  CLI::App app{
      "Runs language models over large data sets: every row is accounted for, whatever crashes."
  };
  app.set_version_flag("--version", "millstream " MS_VERSION);
  app.footer(
      "A first run:\n"
      "  millstream init job.yaml             write a commented job file to start from\n"
      "  millstream run job.yaml --dry-run    check it, show the plan and the first prompts\n"
      "  millstream run job.yaml              run it; run it again to resume\n"
      "Exit codes: 0 complete, 1 the command or job file is wrong, 2 complete with more row errors "
      "than max_errors,\n"
      "  3 the engine is broken whatever the row, 4 a conflict or a changed input: a person must "
      "look, 75 stopped on request, resumable."
  );
  std::stop_source stop, drain;
  CommandContext context;
  context.stop = stop.get_token();
  context.drain = drain.get_token();
  millstream::StopWaitingForStores(context.stop);
  app.add_flag("-q,--quiet", context.quiet, "Print errors and the summary alone");
  app.add_flag("-v,--verbose", context.verbose, "Log more");
  app.require_subcommand(1);
  app.fallthrough();
  app.parse_complete_callback([&] {
    StartLog(
        context.quiet     ? LogLevel::kQuiet
        : context.verbose ? LogLevel::kVerbose
                          : LogLevel::kNormal
    );
    WatchSignals(stop, drain, context);
    if (!kSyncs) {
      fmt::print(stderr, "millstream: this build never syncs: a power cut may cost rows\n");
    }
  });
  AddRun(app, context);
  AddBatch(app, context);
  AddOutputCommands(app, context);
  AddRetry(app, context);
  AddModels(app, context);
  AddBench(app, context);
  AddSchema(app, context);
  AddInit(app, context);
  AddEngineHost(app, context);
  AddServerGuard(app, context);
  AddCoordinator(app, context);
  AddWorker(app, context);
  app.failure_message(FailureMessage);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_name() == "RequiredError" && app.get_subcommands().empty()) {
      return NoCommand(app, app.remaining());
    }
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kWrong);
  }
  return context.exit_code;
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  try {
    if (!arrow::compute::Initialize().ok()) return 1;
    return millstream::Main(argc, argv);
  } catch (const std::exception& error) {  // out of memory, say
    std::fprintf(stderr, "millstream: %s\n", error.what());
    return 1;
  }
}
