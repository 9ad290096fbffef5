// SPDX-License-Identifier: Apache-2.0
// Hidden commands: the child process of a model with `isolate: true`, and the one between a job and
// a server that it launched.
#include "engine/engine_host.h"

#include <memory>

#include "cli/commands.h"
#include "cli/print.h"
#include "job/local_workers.h"
#include "job/remote_workers.h"
#include "openai/server_guard.h"

namespace millstream {

void AddEngineHost(CLI::App& app, CommandContext& context) {
  auto arguments = std::make_shared<std::vector<std::string>>();
  CLI::App* host = app.add_subcommand("engine-host", "")->group("");
  host->add_option("arguments", *arguments);
  host->callback([arguments, &context] {
    const Status status = HostNativeEngine(*arguments);
    // What went wrong with the engine is the parent's to say.
    if (!status.ok()) context.exit_code = static_cast<int>(ExitCode::kWrong);
  });
}

void AddServerGuard(CLI::App& app, CommandContext& context) {
  auto argument = std::make_shared<std::string>();
  CLI::App* guard = app.add_subcommand("server-guard", "")->group("");
  guard->add_option("server", *argument)->required();
  guard->callback([argument, &context] {
    const Status status = GuardServer(*argument);
    if (!status.ok()) context.exit_code = Complain(status);
  });
}

void AddCoordinator(CLI::App& app, CommandContext& context) {
  CLI::App* coordinator = app.add_subcommand("coordinator", "")->group("");
  coordinator->callback([&context] {
    auto storage = MakeStorage(context.stop);
    const Status status = HostCoordinator(*storage);
    if (!status.ok()) context.exit_code = Complain(status);
  });
}

void AddWorker(CLI::App& app, CommandContext& context) {
  CLI::App* worker = app.add_subcommand("worker", "")->group("");
  worker->callback([&context] {
    auto storage = MakeStorage(context.stop);
    const Status status = HostWorker(*storage, /*make_engine=*/{}, SayToPerson, context.stop);
    if (!status.ok()) context.exit_code = static_cast<int>(ExitCodeOf(status));
  });
}

}  // namespace millstream
