// SPDX-License-Identifier: Apache-2.0
#include "job/served.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "model/locate.h"
#include "openai/openai_engine.h"
#include "openai/token_counter.h"
#include "storage/path.h"

namespace millstream {
namespace {

// A secret, which no message names.
Result<std::string> FromEnvironment(const std::string& variable, const std::string& place) {
  const char* const value = std::getenv(variable.c_str());
  if (value == nullptr || *value == '\0') {
    return Status::Invalid(place, ": the environment variable ", variable, " is not set");
  }
  std::string text = value;
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  if (text.empty()) {
    return Status::Invalid(place, ": the environment variable ", variable, " holds only blanks");
  }
  if (text.find_first_of("\r\n") != text.npos) {
    return Status::Invalid(
        place, ": the environment variable ", variable, " holds more than one line"
    );
  }
  return text;
}

// The keys would be in a core dump of this process, and with the environment in those of its
// children.
void KeepKeysOutOfCoreDumps() {
  (void)prctl(PR_SET_DUMPABLE, 0);
  rlimit core{};
  if (getrlimit(RLIMIT_CORE, &core) != 0) return;
  core.rlim_cur = 0;
  (void)setrlimit(RLIMIT_CORE, &core);
}

Result<ServerAccess> AccessOf(const ModelSpec& spec) {
  ServerAccess access;
  access.base_urls = spec.base_urls;
  access.ca_file = spec.ca_file;
  std::error_code ignored;
  if (!spec.ca_file.empty() && !std::filesystem::is_regular_file(spec.ca_file, ignored)) {
    return Status::Invalid("ca_file: cannot read ", spec.ca_file);
  }
  if (!spec.api_key_variable.empty()) {
    MS_ASSIGN_OR_RETURN(
        const std::string key, FromEnvironment(spec.api_key_variable, spec.place.path + ".api_key")
    );
    access.headers.push_back("Authorization: Bearer " + key);
    access.AddSecret(key);
  }
  for (const HeaderSpec& header : spec.headers) {
    std::string value = header.value;
    if (!header.variable.empty()) {
      MS_ASSIGN_OR_RETURN(
          value, FromEnvironment(header.variable, spec.place.path + ".headers." + header.name)
      );
      access.AddSecret(value);
    }
    access.headers.push_back(header.name + ": " + value);
  }
  if (!access.secrets.empty()) KeepKeysOutOfCoreDumps();
  return access;
}

// A small request for each endpoint, which shows whether a server answers at all.
Result<std::map<std::string, std::string>> ProbesOf(
    const ModelSpec& spec, const ServedModel& served
) {
  std::map<std::string, std::string> probes;
  for (const Endpoint endpoint : {Endpoint::kChat, Endpoint::kCompletions}) {
    nlohmann::ordered_json body = {{"model", spec.served_model}, {"max_tokens", 1}};
    if (endpoint == Endpoint::kChat) {
      body["messages"] = {{{"role", "user"}, {"content", "Hi"}}};
    } else {
      body["prompt"] = "Hi";
    }
    MS_RETURN_NOT_OK(TranslateBody(served.dialect, endpoint, body));
    body.update(spec.extra_body);
    probes[std::string(EndpointPath(endpoint))] = body.dump();
  }
  return probes;
}

// A folder for the logs of launched servers: in the state, or, if there is none on this machine, of
// this process's own.
Result<std::string> LogFolder(const PreparedJob& job, const Say& say) {
  std::error_code failed;
  std::string folder;
  if (job.ledger && !IsObjectPath(job.ledger->layout().state)) {
    folder = job.ledger->layout().state + "/logs";
  } else {
    folder =
        std::filesystem::temp_directory_path(failed) / fmt::format("millstream-logs-{}", getpid());
    say("this run keeps no state on this machine: the logs of servers are in " + folder);
  }
  std::filesystem::create_directories(folder, failed);
  if (failed) return Status::IOError("cannot create ", folder, ": ", failed.message());
  return folder;
}

// A file's name for a model's key.
std::string LogName(const std::string& key) {
  std::string name;
  for (const char c : key) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_';
    name += is_plain ? std::string(1, c) : fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return name + ".log";
}

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

Result<LauncherOptions> LauncherOptionsOf(
    const PreparedJob& job, const std::string& key, const ModelSpec& spec, const Say& say
) {
  LauncherOptions options;
  MS_ASSIGN_OR_RETURN(const std::string logs, LogFolder(job, say));
  options.launch.command = spec.launch;
  options.launch.folder = job.spec.folder;
  options.launch.log = logs + "/" + LogName(key);
  for (const auto& [unused, other] : job.spec.models) {
    if (!other.api_key_variable.empty()) {
      options.launch.secret_variables.push_back(other.api_key_variable);
    }
    for (const HeaderSpec& header : other.headers) {
      if (!header.variable.empty()) options.launch.secret_variables.push_back(header.variable);
    }
  }
  options.name = spec.place.path;
  options.say = say;
  options.life.probe_limit = Milliseconds(spec.timeout_seconds);
  options.life.silence = std::min(options.life.silence, options.life.probe_limit);
  return options;
}

// A server that is not there yet cannot be asked what it is.
Result<Dialect> DialectOfCommand(const std::vector<std::string>& command) {
  constexpr std::array<std::pair<std::string_view, Dialect>, 3> kNames{
      {{"llama-server", Dialect::kLlamaServer},
       {"vllm", Dialect::kVllm},
       {"sglang", Dialect::kSglang}}
  };
  for (const std::string& word : command) {
    const std::string program = word.substr(word.rfind('/') + 1);
    for (const auto& [name, dialect] : kNames) {
      if (program.starts_with(name)) return dialect;
    }
  }
  return Status::Invalid(
      "must have a `dialect`: its `launch` does not say what kind of server it starts"
  );
}

}  // namespace

Result<BoundModel> BindServed(
    const ModelSpec& spec, const ServedBinding& binding, PlannedModel& planned
) {
  planned = PlannedModel{};
  if (binding.pinned != nullptr) planned = *binding.pinned;
  planned.path = spec.served_model;
  if (spec.dialect != "auto") planned.dialect = spec.dialect;
  if (spec.context) planned.context = *spec.context;
  const bool is_there = spec.launch.empty();  // to be asked
  if (planned.dialect.empty() && !is_there) {
    MS_ASSIGN_OR_RETURN(const Dialect dialect, DialectOfCommand(spec.launch));
    planned.dialect = DialectName(dialect);
  }
  const bool needs_context = binding.truncates || !spec.tokenizer.empty();
  if (is_there && (planned.dialect.empty() || (needs_context && planned.context == 0))) {
    MS_ASSIGN_OR_RETURN(const ServerAccess access, AccessOf(spec));
    MS_ASSIGN_OR_RETURN(
        const ServerFacts facts,
        AskServers(access, spec.served_model, binding.patience, binding.say, binding.stop)
    );
    if (planned.dialect.empty()) planned.dialect = DialectName(facts.dialect);
    if (planned.context == 0) planned.context = facts.context;
  }
  BoundModel bound;
  bound.model = std::make_shared<LanguageModel>();
  bound.context = planned.context;
  ServedModel& served = bound.served.emplace();
  served.name = spec.served_model;
  served.dialect = DialectFromName(planned.dialect).value_or(Dialect::kOpenAi);
  served.extra_body = spec.extra_body;
  if (!spec.tokenizer.empty()) {
    auto path = LocateModel(spec.tokenizer, DefaultModelSearch(binding.folder));
    if (!path.ok()) return path.status().WithMessage("tokenizer: ", path.status().message());
    MS_ASSIGN_OR_RETURN(auto model, OpenTokenizerOf(*path));
    served.count_tokens = CountHere(std::move(model), binding.now_unix_seconds);
    served.counts_every_row = true;
  } else if (!is_there) {
    if (binding.truncates) {
      return Status::Invalid(
          "cutting prompts takes `tokenizer` and `context`: its server, which `launch` starts, is "
          "not there to be asked when the job is planned"
      );
    }
  } else if (auto access = AccessOf(spec); access.ok()) {
    served.count_tokens =
        CountAtServers(*std::move(access), served.dialect, served.name, binding.stop);
  } else if (binding.truncates) {
    return access.status();
  }
  bound.identity = fmt::format("openai {} {}", planned.dialect, spec.served_model);
  return bound;
}

Result<std::unique_ptr<Engine>> StartServed(
    const PreparedJob& job, const std::string& key, const Say& say, std::stop_token stop
) {
  const ModelSpec& spec = job.model_specs.at(key);
  OpenAiEngineOptions options;
  if (!spec.launch.empty()) {
    MS_ASSIGN_OR_RETURN(options.launch, LauncherOptionsOf(job, key, spec, say));
  }
  MS_ASSIGN_OR_RETURN(options.access, AccessOf(spec));
  options.access.headers.emplace_back("Content-Type: application/json");
  MS_ASSIGN_OR_RETURN(options.probes, ProbesOf(spec, *job.models.at(key).served));
  if (spec.price) options.price = {spec.price->input, spec.price->output};
  options.max_in_flight = spec.max_in_flight;
  options.num_engines = std::count_if(job.models.begin(), job.models.end(), [](const auto& model) {
    return model.second.served.has_value();
  });
  options.requests_per_minute = spec.requests_per_minute;
  options.tokens_per_minute = spec.tokens_per_minute;
  options.timeout = Milliseconds(spec.timeout_seconds);
  options.row_deadline = Milliseconds(spec.row_deadline_seconds);
  options.say = say;
  return MakeOpenAiEngine(std::move(options), std::move(stop));
}

}  // namespace millstream
