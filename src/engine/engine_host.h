// SPDX-License-Identifier: Apache-2.0
// The child's side of an engine in a process of its own: see hosted_engine.h for the parent's.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/language_model.h"
#include "engine/native_engine.h"
#include "engine/wire.h"

namespace millstream {

/// An engine, and what compiles the constraints of its requests (may be null: none come).
struct ServedEngine {
  std::unique_ptr<Engine> engine;
  GrammarMaker make_grammar;
};

/// The native engine for a child.
Result<ServedEngine> ServeNative(
    std::shared_ptr<const LanguageModel> model, const NativeEngineOptions& options
);

/// The command with which our own binary hosts the native engine, and what it does with the
/// arguments after the subcommand's name.
std::vector<std::string> NativeHostCommand(
    const std::string& model_path, const NativeEngineOptions& options
);
Status HostNativeEngine(const std::vector<std::string>& arguments);

/// Makes the engine and serves it to the parent over standard input, until the parent is gone or
/// the engine is. The process dies with its parent, and its fatal signals leave a record for it. To
/// be called once, on the main thread.
Status HostEngine(const std::function<Result<ServedEngine>()>& make);

/// Serves it over `socket`, without what concerns the whole process.
Status ServeEngine(int socket, const std::function<Result<ServedEngine>()>& make);

}  // namespace millstream
