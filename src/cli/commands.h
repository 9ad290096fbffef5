// SPDX-License-Identifier: Apache-2.0
// The subcommands: each adds itself to the command line and, when chosen, sets the exit code. Only
// this folder prints and exits.

#pragma once

#include <atomic>
#include <stop_token>

#include "CLI/App.hpp"

namespace millstream {

/// What subcommands share. `drain` is requested by SIGTERM; `stop` by SIGINT, and some time after a
/// SIGTERM.
struct CommandContext {
  std::stop_token stop, drain;
  std::atomic<int> drain_seconds = 25;  // from a SIGTERM to the exit
  bool quiet = false;
  bool verbose = false;
  int exit_code = 0;
};

void AddRun(CLI::App& app, CommandContext& context);
void AddBatch(CLI::App& app, CommandContext& context);
void AddRetry(CLI::App& app, CommandContext& context);
void AddOutputCommands(CLI::App& app, CommandContext& context);
void AddModels(CLI::App& app, CommandContext& context);
void AddBench(CLI::App& app, CommandContext& context);
void AddSchema(CLI::App& app, CommandContext& context);
void AddInit(CLI::App& app, CommandContext& context);
void AddEngineHost(CLI::App& app, CommandContext& context);
void AddCoordinator(CLI::App& app, CommandContext& context);
void AddWorker(CLI::App& app, CommandContext& context);
void AddServerGuard(CLI::App& app, CommandContext& context);

}  // namespace millstream
