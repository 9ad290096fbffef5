// SPDX-License-Identifier: Apache-2.0
// A job from its file to its success: plans or loads the plan, runs the pipeline, publishes parts.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "engine/engine.h"
#include "engine/flight_recorder.h"
#include "job/blamed_rows.h"
#include "job/plan.h"
#include "ledger/ledger.h"
#include "pipeline/bind.h"
#include "pipeline/parse_spec.h"
#include "pipeline/runner.h"

namespace millstream {

/// How a command ends: the exit codes of design.md.
enum class ExitCode {
  kComplete = 0,
  kWrong = 1,
  kTooManyErrors = 2,
  kEngineBroken = 3,
  kConflict = 4,
  kStopped = 75
};

/// Starts an engine for a model.
using EngineMaker = std::function<Result<std::unique_ptr<Engine>>(const BoundModel&)>;

class Coordination;
struct JobOptions;
struct PreparedJob;
/// Says something worth knowing to a person while a job starts.
using Say = std::function<void(const std::string&)>;
/// Brings workers to a coordination until it is over; fails with Cancelled at a stop.
using WorkersRunner = std::function<
    Status(Coordination&, const PreparedJob&, const JobOptions&, const Say&, std::stop_token)>;

/// What to do, beyond the job file.
struct JobOptions {
  std::string file;
  std::optional<std::string> text;  // of the job file, in place of what stands there
  SpecOverrides overrides;
  bool restart = false;
  bool append = false;                      // take in input that came since
  std::vector<std::string> accept_changes;  // fields of the spec
  bool accept_all = false;                  // of them that can be
  std::int64_t limit = 0;                   // rows; 0: all
  bool spread = false;                      // of a limit: rows spread over the input
  RunnerOptions runner;
  int workers = 0;            // processes on this machine that share the rows; 0: this one alone
  WorkersRunner run_workers;  // in place of these: where workers come from
  /// Which coordinator on a cluster this is, whatever process it is in; empty: none. One that
  /// begins anew takes the job over from the process before it, though that may only stand still
  /// and hold the output's lock: the epoch fences it off.
  std::string coordinator;
  bool begins_anew = false;
  std::stop_token drain;    // when requested, no more rows are begun, and the run stops
  EngineMaker make_engine;  // in place of the native one, for tests
  std::chrono::milliseconds disk_interval{1000};    // between two looks at the disk's space
  std::chrono::milliseconds worker_silence{15000};  // of one that is to be taken for dead
};

/// What a run is doing. Thread-safe: written by the run, read by whoever shows it.
class JobMonitor {
 public:
  struct Progress {
    std::int64_t rows_total = 0;
    RowCounts rows;                 // finished, those of earlier runs included
    std::int64_t rows_in_hand = 0;  // workers have finished, and no part has yet
    RowCounts rows_before;          // of earlier runs

    std::int64_t rows_finished() const { return rows.total() + rows_in_hand; }
    EngineStats tokens;
  };
  struct ErrorSample {
    std::int64_t count = 0;
    std::string example;  // "glosses.jsonl:17: message"
  };

  Progress progress() const;
  /// Errors of this run by code.
  std::map<std::string, ErrorSample> errors() const;

  void Start(std::int64_t rows_total, const RowCounts& before, std::vector<const Engine*> engines);
  void Count(const FinishedRows& rows, const std::vector<std::string>& files);
  /// Answers that max_tokens ended.
  std::atomic<std::int64_t> cut_answers = 0;
  /// Of the rows of open splits (pipeline/in_flight.h).
  std::atomic<std::int64_t> bytes_in_flight = 0;
  /// The engines are about to go: keeps their last numbers.
  void End();
  /// Shows what the workers of a run have done, in place of what is counted here.
  void Show(const Progress& progress, std::map<std::string, ErrorSample> errors);

 private:
  mutable Mutex mutex_;
  Progress progress_ MS_GUARDED_BY(mutex_);
  std::vector<const Engine*> engines_ MS_GUARDED_BY(mutex_);
  std::map<std::string, ErrorSample> errors_ MS_GUARDED_BY(mutex_);
};

/// A job ready to run: spec, input and plan, bound. Nothing has been written.
struct PreparedJob {
  JobSpec spec;
  InputOptions input;
  Plan plan;
  BoundJob bound;
  std::map<std::string, BoundModel> models;  // by the name that steps use
  std::map<std::string, ModelSpec> model_specs;
  std::unique_ptr<Ledger> ledger;     // of an earlier run, or null
  std::unique_ptr<StorageLock> lock;  // of the output, once its state folder stands
  // To be journaled once the ledger has begun: a changed spec that was accepted, new input.
  std::optional<nlohmann::ordered_json> spec_change, more_plan;
  std::int32_t spec_version = 1;
  bool resumed = false;
  // Rows that killed an engine or workers, which a run does not try again; null: it tries all.
  std::unique_ptr<BlamedRows> blamed;
  int engine_threads = 0;  // of native engines whose models name no number; 0: all cores
};

struct JobReport {
  ExitCode exit = ExitCode::kComplete;
  std::string output;  // what to open
  RowCounts rows, rows_before;
  std::map<std::string, JobMonitor::ErrorSample> errors;
  EngineStats tokens;
  std::int64_t cut_answers = 0;  // finished by max_tokens
  double seconds = 0;
  bool had_nothing_to_do = false;
  std::string why_stopped;  // kStopped: in words; empty: on request
};

/// What a job is prepared for. A preview leaves the job's own output alone; a run locks it, and a
/// worker works for the run that has.
enum class PrepareFor { kPreview, kRun, kWorker };
/// Reads the job file, snapshots the input (or loads the plan that stands at the output), opens
/// models' headers and binds the steps.
Result<PreparedJob> PrepareJob(
    Storage& storage,
    const JobOptions& options,
    PrepareFor purpose,
    const Say& say,
    std::stop_token stop
);

/// The engines of a job, by model key. Steps that name one model with the same settings share one.
struct JobEngines {
  std::unique_ptr<FlightRecorder> recorder;  // outlives the engines
  std::vector<Flight> suspects;              // requests that may have killed the last driver
  std::vector<std::unique_ptr<Engine>> owned;
  std::map<std::string, Engine*> by_key;
};
/// Starts them: native ones, or what `make_engine` makes if it is given. At most one JobEngines at
/// a time, as its flight recorder catches this process's fatal signals. Waits for servers that it
/// launches to be ready.
Result<JobEngines> StartEngines(
    const PreparedJob& job, const EngineMaker& make_engine, const Say& say, std::stop_token stop
);

/// Who runs this: {pid, host, since, version}.
nlohmann::ordered_json ThisDriver();
/// Takes the lock of an output. Cancelled, saying who holds it, if another run does. Null if the
/// coordinator that the options name begins anew, and its process before holds it.
Result<std::unique_ptr<StorageLock>> LockOutput(
    Storage& storage, const OutputLayout& layout, const JobOptions& options
);

/// The job file and what the command line changed of it: enough to read it again.
nlohmann::ordered_json SpecSource(const JobSpec& spec, const SpecOverrides& overrides);
/// The options that read it again, from the ledger of an output. Invalid if they are not there.
Result<JobOptions> StandingOptions(const Ledger& ledger);

/// Runs the job file to its end.
Result<JobReport> RunJob(
    Storage& storage,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

/// Runs the limited rows in memory and returns the output rows; writes nothing.
struct Preview {
  std::shared_ptr<arrow::Schema> schema;
  arrow::RecordBatchVector rows;
  RowCounts counts;
  std::int64_t rows_in_input = 0;
  double seconds = 0;
};
Result<Preview> RunPreview(
    Storage& storage,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

/// Runs the splits of a prepared job in memory.
Result<Preview> RunInMemory(
    const PreparedJob& job,
    const std::vector<Split>& splits,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
);

/// The exit code that a failure asks for.
ExitCode ExitCodeOf(const Status& status);
/// The failure that another process ended with, by the exit code that it asks for.
Status FailureOf(ExitCode exit, std::string message);

}  // namespace millstream
