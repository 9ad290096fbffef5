// SPDX-License-Identifier: Apache-2.0
// A process for tests/python/test_kills.py and bench/resume to kill: runs a job file with a
// scripted engine whose answers name the attempt, and writes down which rows it was asked for.
//
//   torture_driver model FILE     writes a tiny model
//   torture_driver run JOB ATTEMPT ASKED [CALL [ROW_MS [WORKERS [SILENCE_MS]]]]
//       appends to the file ASKED; kills itself at a call to the disk (0: at none); else prints how
//       many it made. With ROW_MS a row takes so long, and its end is written down as well. With
//       WORKERS they do the work, each as `torture_driver worker`, of which each writes to a file
//       of its own, ASKED and its process's number; and one that is silent for SILENCE_MS is dead.
//   torture_driver worker
// An output on S3 is written as the program does it. A row with the text "kill SIGNAL" kills.
#include <unistd.h>

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
#include "job/local_workers.h"
#include "model/testing.h"
#include "storage/path.h"
#include "storage/simulated_disk.h"

namespace millstream {
namespace {

struct Arguments {
  std::string job, attempt, asked;
  std::int64_t kill_at = 0;
  std::chrono::milliseconds row_time{0};
  int workers = 0;
  std::chrono::milliseconds silence{0};
};

// Where a worker finds what its driver was given.
constexpr const char* kAttempt = "MS_TORTURE_ATTEMPT";
constexpr const char* kAsked = "MS_TORTURE_ASKED";
constexpr const char* kRowTime = "MS_TORTURE_ROW_MS";

EngineMaker Scripted(const Arguments& arguments, AppendFile& asked) {
  return [&asked, &arguments](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.per_poll = 1;
    script.max_requests = 8;
    script.answer = [&asked, &arguments, model = bound.model](const Request& request) {
      const std::string row = model->tokenizer->Decode(request.prompt_tokens, true).ValueOrDie();
      MS_CHECK(asked.Append(row + "\n").ok());
      if (row.starts_with("kill ")) (void)std::raise(std::stoi(row.substr(5)));
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

const Say kSay = [](const std::string& message) { fmt::print(stderr, "{}\n", message); };

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
  options.workers = arguments.workers;
  if (arguments.silence.count() > 0) options.worker_silence = arguments.silence;
  setenv(kAttempt, arguments.attempt.c_str(), 1);
  setenv(kAsked, arguments.asked.c_str(), 1);
  setenv(kRowTime, std::to_string(arguments.row_time.count()).c_str(), 1);
  JobMonitor monitor;
  MS_ASSIGN_OR_RETURN(const JobReport report, RunJob(*storage, options, monitor, kSay, {}));
  if (!report.why_stopped.empty()) fmt::print(stderr, "{}\n", report.why_stopped);
  fmt::print("{}\n", disk->num_calls());
  return report.exit;
}

Status Work() {
  Arguments arguments;
  arguments.attempt = std::getenv(kAttempt);
  arguments.row_time = std::chrono::milliseconds(std::strtoll(std::getenv(kRowTime), nullptr, 10));
  const std::unique_ptr<Storage> storage = MakeLocalStorage();
  MS_ASSIGN_OR_RETURN(
      const auto asked, storage->CreateAppend(fmt::format("{}-{}", std::getenv(kAsked), getpid()))
  );
  return HostWorker(*storage, Scripted(arguments, *asked), kSay, {});
}

int Main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "model") {
    return WriteFile(argv[2], TinyGguf({}).Build().first).ok() ? 0 : 1;
  }
  if (argc == 2 && std::string(argv[1]) == "worker") {
    const Status worked = Work();
    return worked.ok() ? 0 : static_cast<int>(ExitCodeOf(worked));
  }
  if (argc < 5) return 1;
  const auto number = [&](int place) {
    return argc > place ? std::strtoll(argv[place], nullptr, 10) : 0;
  };
  const auto ended = Run(
      {argv[2],
       argv[3],
       argv[4],
       number(5),
       std::chrono::milliseconds(number(6)),
       static_cast<int>(number(7)),
       std::chrono::milliseconds(number(8))}
  );
  if (ended.ok()) return static_cast<int>(*ended);
  fmt::print(stderr, "{}\n", ended.status().ToString());
  return static_cast<int>(ExitCodeOf(ended.status()));
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  return arrow::compute::Initialize().ok() ? millstream::Main(argc, argv) : 1;
}
