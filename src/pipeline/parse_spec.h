// SPDX-License-Identifier: Apache-2.0
// Reads a job file. Everything that can be known from the file alone is checked here, and every
// mistake reported.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "pipeline/spec.h"

namespace millstream {

/// What the command line changes.
struct SpecOverrides {
  std::vector<std::pair<std::string, std::string>> vars;  // --var NAME=VALUE
  std::vector<std::pair<std::string, std::string>> sets;  // --set PATH=YAML; steps go by id
  std::string output;                                     // --output, empty: the file's
};

/// One mistake in a job file.
struct SpecMistake {
  std::string file;
  SpecPlace place;
  std::string message;  // what is wrong and what would be right
};

/// Parses and checks `path`. On mistakes returns Invalid whose message has one line a mistake:
/// "FILE:LINE: PATH: MESSAGE". `mistakes`, if given, gets them one by one.
Result<JobSpec> ParseJobFile(
    const std::string& path,
    const SpecOverrides& overrides,
    std::vector<SpecMistake>* mistakes = nullptr
);
/// The same for the text of a job file that stands at `path`.
Result<JobSpec> ParseJobText(
    const std::string& text,
    const std::string& path,
    const SpecOverrides& overrides,
    std::vector<SpecMistake>* mistakes = nullptr
);

/// The JSON Schema of job files, for editors.
nlohmann::ordered_json JobFileSchema();

/// The reference of every key as Markdown: the part of docs/job-file.md that a test keeps equal to
/// it.
std::string JobFileReference();

}  // namespace millstream
