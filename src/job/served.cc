// SPDX-License-Identifier: Apache-2.0
#include "job/served.h"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "model/locate.h"
#include "openai/openai_engine.h"
#include "openai/token_counter.h"

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
    const ModelSpec& spec, const ServedBinding& binding, PlannedModel& planned
) {
  planned = PlannedModel{};
  if (binding.pinned != nullptr) planned = *binding.pinned;
  planned.path = spec.served_model;
  if (spec.dialect != "auto") planned.dialect = spec.dialect;
  if (spec.context) planned.context = *spec.context;
  const bool needs_context = binding.truncates || !spec.tokenizer.empty();
  if (planned.dialect.empty() || (needs_context && planned.context == 0)) {
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
    const ModelSpec& spec, const ServedModel& served, const Say& say
) {
  const auto millis = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  };
  OpenAiEngineOptions options;
  MS_ASSIGN_OR_RETURN(options.access, AccessOf(spec));
  options.access.headers.emplace_back("Content-Type: application/json");
  MS_ASSIGN_OR_RETURN(options.probes, ProbesOf(spec, served));
  if (spec.price) options.price = {spec.price->input, spec.price->output};
  options.max_in_flight = spec.max_in_flight;
  options.requests_per_minute = spec.requests_per_minute;
  options.tokens_per_minute = spec.tokens_per_minute;
  options.timeout = millis(spec.timeout_seconds);
  options.row_deadline = millis(spec.row_deadline_seconds);
  options.say = say;
  return MakeOpenAiEngine(std::move(options));
}

}  // namespace millstream
