// SPDX-License-Identifier: Apache-2.0
// A hidden command: the child process of a model with `isolate: true`.
#include "engine/engine_host.h"

#include <memory>

#include "cli/commands.h"
#include "cli/print.h"

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

}  // namespace millstream
