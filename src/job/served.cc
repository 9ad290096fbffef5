// SPDX-License-Identifier: Apache-2.0
#include "job/served.h"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "openai/openai_engine.h"

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
  if (text.find_first_of("\r\n") != text.npos) {
    return Status::Invalid(
        place, ": the environment variable ", variable, " holds more than one line"
    );
  }
  return text;
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
    access.secrets.push_back(key);
  }
  for (const HeaderSpec& header : spec.headers) {
    std::string value = header.value;
    if (!header.variable.empty()) {
      MS_ASSIGN_OR_RETURN(
          value, FromEnvironment(header.variable, spec.place.path + ".headers." + header.name)
      );
      access.secrets.push_back(value);
    }
    access.headers.push_back(header.name + ": " + value);
  }
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

}  // namespace

Result<BoundModel> BindServed(
    const ModelSpec& spec,
    const PlannedModel* pinned,
    std::chrono::milliseconds patience,
    const Say& say,
    std::stop_token stop,
    PlannedModel& planned
) {
  planned = PlannedModel{};
  planned.path = spec.served_model;
  std::optional<Dialect> dialect = DialectFromName(spec.dialect);
  if (!dialect && pinned != nullptr) dialect = DialectFromName(pinned->dialect);
  if (!dialect) {
    MS_ASSIGN_OR_RETURN(const ServerAccess access, AccessOf(spec));
    MS_ASSIGN_OR_RETURN(
        const ServerFacts facts,
        AskServers(access, spec.served_model, patience, say, std::move(stop))
    );
    dialect = facts.dialect;
  }
  planned.dialect = DialectName(*dialect);
  BoundModel bound;
  bound.model = std::make_shared<LanguageModel>();
  bound.served = ServedModel{spec.served_model, *dialect, spec.extra_body};
  bound.identity = fmt::format("openai {} {}", planned.dialect, spec.served_model);
  return bound;
}

Result<std::unique_ptr<Engine>> StartServed(
    const ModelSpec& spec, const ServedModel& served, const Say& say
) {
  const auto millis = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  };
  OpenAiEngineOptions options;
  MS_ASSIGN_OR_RETURN(options.access, AccessOf(spec));
  options.access.headers.emplace_back("Content-Type: application/json");
  MS_ASSIGN_OR_RETURN(options.probes, ProbesOf(spec, served));
  options.max_in_flight = spec.max_in_flight;
  options.timeout = millis(spec.timeout_seconds);
  options.row_deadline = millis(spec.row_deadline_seconds);
  options.say = say;
  return MakeOpenAiEngine(std::move(options));
}

}  // namespace millstream
