// SPDX-License-Identifier: Apache-2.0
// A process for tests/python/test_kills.py and bench/resume to kill: runs a job file with a
// scripted engine whose answers name the attempt, and writes down which rows it was asked for.
//
//   torture_driver model FILE     writes a tiny model
//   torture_driver run JOB ATTEMPT ASKED [CALL [ROW_MS]]
//       appends to the file ASKED; kills itself at a call to the disk (0: at none); else prints how
//       many it made. With ROW_MS a row takes so long, and its end is written down as well.
// An output on S3 is written as the program does it.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "arrow/compute/initialize.h"
#include "base/check.h"
#include "engine/scripted_engine.h"
#include "fmt/format.h"
#include "job/job.h"
#include "model/testing.h"
#include "storage/path.h"
#include "storage/simulated_disk.h"

namespace millstream {
namespace {

struct Arguments {
  std::string job, attempt, asked;
  std::int64_t kill_at = 0;
  std::chrono::milliseconds row_time{0};
};

EngineMaker Scripted(const Arguments& arguments, AppendFile& asked) {
  return [&asked, &arguments](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.per_poll = 1;
    script.max_requests = 8;
    script.answer = [&asked, &arguments, model = bound.model](const Request& request) {
      const std::string row = model->tokenizer->Decode(request.prompt_tokens, true).ValueOrDie();
      MS_CHECK(asked.Append(row + "\n").ok());
      if (arguments.row_time.count() > 0) {
        std::this_thread::sleep_for(arguments.row_time);
        MS_CHECK(asked.Append(row + " ended\n").ok());
      }
      Completion completion;
      completion.text = fmt::format("{} @{}@", row, arguments.attempt);
      completion.tokens = {7, 8};
      return completion;
    };
    return MakeScriptedEngine(std::move(script));
  };
}

Result<ExitCode> Run(const Arguments& arguments) {
  const std::unique_ptr<Storage> outside = MakeLocalStorage();
  MS_ASSIGN_OR_RETURN(const auto asked, outside->CreateAppend(arguments.asked));
  const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
  disk->CallAt(arguments.kill_at, [] { (void)std::raise(SIGKILL); });
  JobOptions options;
  options.file = arguments.job;
  MS_ASSIGN_OR_RETURN(const JobSpec spec, ParseJobFile(options.file, options.overrides));
  const std::unique_ptr<Storage> storage =
      IsObjectPath(spec.output.path) ? MakeStorage({}) : MakeDiskStorage(disk);
  options.runner.batch_rows = 5;
  options.make_engine = Scripted(arguments, *asked);
  JobMonitor monitor;
  const auto say = [](const std::string& message) { fmt::print(stderr, "{}\n", message); };
  MS_ASSIGN_OR_RETURN(const JobReport report, RunJob(*storage, options, monitor, say, {}));
  if (!report.why_stopped.empty()) fmt::print(stderr, "{}\n", report.why_stopped);
  fmt::print("{}\n", disk->num_calls());
  return report.exit;
}

int Main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "model") {
    return WriteFile(argv[2], TinyGguf({}).Build().first).ok() ? 0 : 1;
  }
  if (argc < 5) return 1;
  const auto number = [&](int place) {
    return argc > place ? std::strtoll(argv[place], nullptr, 10) : 0;
  };
  const auto ended =
      Run({argv[2], argv[3], argv[4], number(5), std::chrono::milliseconds(number(6))});
  if (ended.ok()) return static_cast<int>(*ended);
  fmt::print(stderr, "{}\n", ended.status().ToString());
  return static_cast<int>(ExitCodeOf(ended.status()));
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  return arrow::compute::Initialize().ok() ? millstream::Main(argc, argv) : 1;
}
