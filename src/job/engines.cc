// SPDX-License-Identifier: Apache-2.0
// The engines of a job: in this process, where a flight recorder names what kills it, or in a
// child.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "engine/engine_host.h"
#include "engine/guarded_engine.h"
#include "engine/hosted_engine.h"
#include "engine/native_engine.h"
#include "engine/recorded_engine.h"
#include "fmt/format.h"
#include "job/job.h"
#include "openai/openai_engine.h"
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

// A secret, which no message names.
Result<std::string> FromEnvironment(const std::string& variable, const std::string& place) {
  const char* const value = std::getenv(variable.c_str());
  if (value == nullptr || *value == '\0') {
    return Status::Invalid(place, ": the environment variable ", variable, " is not set");
  }
  std::string text = value;
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  if (text.find_first_of("\r\n") != text.npos) {
    return Status::Invalid(
        place, ": the environment variable ", variable, " holds more than one line"
    );
  }
  return text;
}

Result<std::unique_ptr<Engine>> StartOpenAi(const ModelSpec& spec, const Say& say) {
  const auto millis = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  };
  OpenAiEngineOptions options;
  options.base_urls = spec.base_urls;
  options.headers.emplace_back("Content-Type: application/json");
  options.max_in_flight = spec.max_in_flight;
  options.say = say;
  const Dialect dialect = DialectFromName(spec.dialect).value_or(Dialect::kOpenAi);
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    nlohmann::ordered_json body = {{"model", spec.served_model}, {"max_tokens", 1}};
    if (endpoint == Endpoint::kChat) {
      body["messages"] = {{{"role", "user"}, {"content", "Hi"}}};
    } else {
      body["prompt"] = "Hi";
    }
    MS_RETURN_NOT_OK(TranslateBody(dialect, endpoint, body));
    body.update(spec.extra_body);
    options.probes[std::string(EndpointPath(endpoint))] = body.dump();
  }
  options.timeout = millis(spec.timeout_seconds);
  options.row_deadline = millis(spec.row_deadline_seconds);
  if (!spec.api_key_variable.empty()) {
    MS_ASSIGN_OR_RETURN(
        const std::string key, FromEnvironment(spec.api_key_variable, spec.place.path + ".api_key")
    );
    options.headers.push_back("Authorization: Bearer " + key);
    options.secrets.push_back(key);
  }
  for (const HeaderSpec& header : spec.headers) {
    std::string value = header.value;
    if (!header.variable.empty()) {
      MS_ASSIGN_OR_RETURN(
          value, FromEnvironment(header.variable, spec.place.path + ".headers." + header.name)
      );
      options.secrets.push_back(value);
    }
    options.headers.push_back(header.name + ": " + value);
  }
  return MakeOpenAiEngine(std::move(options));
}

}  // namespace

Result<JobEngines> StartEngines(
    const PreparedJob& job, const EngineMaker& make_engine, const Say& say
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
      MS_ASSIGN_OR_RETURN(engines.owned.emplace_back(), StartOpenAi(spec, say));
      engines.by_key[key] = engines.owned.back().get();
      continue;
    }
    NativeEngineOptions options;
    options.context = model.context;
    options.memory_bytes = spec.memory_bytes.value_or(0);
    options.threads = spec.threads.value_or(0);
    options.compute = ComputeFromName(spec.compute);
    const std::string settings = fmt::format(
        "{}|{}|{}|{}|{}|{}|{}",
        model.model->path,
        options.context,
        options.memory_bytes,
        options.threads,
        spec.compute,
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
