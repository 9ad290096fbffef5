// SPDX-License-Identifier: Apache-2.0
// The engines of a job: in this process, where a flight recorder names what kills it, or in a
// child.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/engine_host.h"
#include "engine/guarded_engine.h"
#include "engine/hosted_engine.h"
#include "engine/native_engine.h"
#include "engine/recorded_engine.h"
#include "fmt/format.h"
#include "job/job.h"
#include "job/served.h"
#include "storage/path.h"

namespace millstream {
namespace {

HostedEngineOptions HostedOptions(
    const BoundModel& model, const ModelSpec& spec, const NativeEngineOptions& options
) {
  HostedEngineOptions hosted;
  hosted.command = NativeHostCommand(model.model->path, options);
  hosted.hang_limit = std::chrono::seconds(spec.hang_seconds);
  return hosted;
}

// Reads what the last driver died of, and begins a record of this one's flights. A job that keeps
// no state on this machine has none.
Status StartRecorder(const PreparedJob& job, const Say& say, JobEngines& engines) {
  if (!job.ledger || IsObjectPath(job.ledger->layout().state)) return Status::OK();
  if (job.ledger->is_worker()) return Status::OK();  // its coordinator tells what workers die of
  const std::string path = job.ledger->layout().state + "/flight";
  auto record = FlightRecorder::Read(path);
  if (!record.ok()) {
    say(record.status().message() + ": no row is suspect");
  } else {
    engines.suspects = std::move(record->suspects);
    if (record->cause != FlightCause::kNone) {
      say(fmt::format(
          "the last run died of {} with {} rows in the model: each is tried apart from this "
          "process",
          record->Describe(),
          engines.suspects.size()
      ));
    }
  }
  MS_ASSIGN_OR_RETURN(engines.recorder, FlightRecorder::Open(path, engines.suspects));
  engines.recorder->CatchFatalSignals();
  return Status::OK();
}

Result<std::unique_ptr<Engine>> StartNative(
    const BoundModel& model,
    const ModelSpec& spec,
    const NativeEngineOptions& options,
    const JobEngines& engines
) {
  MS_ASSIGN_OR_RETURN(auto engine, MakeNativeEngine(model.model, options));
  if (!engines.recorder) return engine;
  engine = MakeRecordedEngine(
      std::move(engine), *engines.recorder, {std::chrono::seconds(spec.hang_seconds), {}}
  );
  if (engines.suspects.empty()) return engine;
  const HostedEngineOptions hosted = HostedOptions(model, spec, options);
  return MakeGuardedEngine(std::move(engine), *engines.recorder, engines.suspects, [hosted] {
    return MakeHostedEngine(hosted);
  });
}

}  // namespace

Result<JobEngines> StartEngines(
    const PreparedJob& job, const EngineMaker& make_engine, const Say& say, std::stop_token stop
) {
  JobEngines engines;
  const bool has_native =
      std::any_of(job.model_specs.begin(), job.model_specs.end(), [](const auto& entry) {
        return entry.second.is_native;
      });
  if (!make_engine && has_native) MS_RETURN_NOT_OK(StartRecorder(job, say, engines));
  std::map<std::string, Engine*> by_settings;
  for (const auto& [key, model] : job.models) {
    const ModelSpec& spec = job.model_specs.at(key);
    if (!spec.is_native && !make_engine) {
      MS_ASSIGN_OR_RETURN(engines.owned.emplace_back(), StartServed(job, key, say, stop));
      engines.by_key[key] = engines.owned.back().get();
      continue;
    }
    NativeEngineOptions options;
    options.context = model.context;
    options.memory_bytes = spec.memory_bytes.value_or(0);
    options.threads = spec.threads.value_or(job.engine_threads);
    options.compute = ComputeFromName(job.plan.models.at(key).compute);
    options.isa = job.spec.isa;
    const std::string settings = fmt::format(
        "{}|{}|{}|{}|{}|{}|{}",
        model.model->path,
        options.context,
        options.memory_bytes,
        options.threads,
        ComputeName(options.compute),
        spec.isolate,
        spec.hang_seconds
    );
    Engine*& engine = by_settings[settings];
    if (engine == nullptr) {
      MS_ASSIGN_OR_RETURN(
          std::unique_ptr<Engine> started,
          make_engine    ? make_engine(model)
          : spec.isolate ? MakeHostedEngine(HostedOptions(model, spec, options))
                         : StartNative(model, spec, options, engines)
      );
      engine = started.get();
      engines.owned.push_back(std::move(started));
    }
    engines.by_key[key] = engine;
  }
  return engines;
}

}  // namespace millstream
