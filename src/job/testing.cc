// SPDX-License-Identifier: Apache-2.0
#include "job/testing.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "fmt/format.h"
#include "model/testing.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHead = R"(models: {tiny: {path: tiny.gguf}}
input: {path: rows.jsonl}
split_rows: 9
output: {path: out, rows: [ok, error, skipped]}
steps:
  - filter: "{{ id % 3 != 0 }}"
  - check: {that: "{{ id % 5 != 0 }}"}
)";
constexpr const char* kGenerate = R"(  - generate:
      model: tiny
      raw_prompt: "{{ text }}"
      as: answer
      max_tokens: 8
)";
constexpr const char* kTail = R"(  - set: {title: "{{ NAME|upper }}"}
    id: title
)";

// Rows of these records are broken, or refused by the engine.
bool IsBroken(std::int64_t record) {
  return record % 8 == 4;
}
bool IsRefused(std::int64_t record) {
  return record % 11 == 2;
}

std::string TextOf(std::int64_t record) {
  return fmt::format("{} {}", IsRefused(record) ? "refuse" : "row", record);
}

void AddRows(const std::string& path, std::vector<std::string>& lines) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const Json row = Json::parse(line);
    std::string found = fmt::format(
        "{} {}", row["_source"]["record"].get<std::int64_t>(), std::string(row["_status"])
    );
    if (!row["_error"].is_null()) found += " " + std::string(row["_error"]["code"]);
    if (!row["title"].is_null()) found += " " + std::string(row["title"]);
    lines.push_back(std::move(found));
  }
}

}  // namespace

SmallJob::SmallJob(bool has_model) {
  std::string rows;
  for (std::int64_t record = 1; record <= kRows; ++record) {
    rows += IsBroken(record)
                ? "{broken\n"
                : fmt::format("{{\"id\": {}, \"text\": \"{}\"}}\n", record, TextOf(record));
  }
  std::string job = std::string(kHead) + (has_model ? kGenerate : "") + kTail;
  job.replace(job.find("NAME"), 4, has_model ? "answer" : "text");
  MS_CHECK(WriteFile(folder_ / "rows.jsonl", rows).ok());
  MS_CHECK(WriteFile(folder_ / "job.yaml", job).ok());
  MS_CHECK(WriteFile(folder_ / "tiny.gguf", TinyGguf({}).Build().first).ok());
}

JobOptions SmallJob::OptionsFor(const std::string& output, const std::string& format) const {
  JobOptions options;
  options.file = folder_ / "job.yaml";
  options.overrides.output = PathOf(output);
  options.overrides.sets = {{"output.format", format}};
  options.make_engine = [](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.per_poll = 1;  // a stop finds some rows answered and some not
    script.answer = [model = bound.model](const Request& request) {
      return Answer(request, *model);
    };
    return MakeScriptedEngine(std::move(script));
  };
  return options;
}

Completion SmallJob::Answer(const Request& request, const LanguageModel& model) {
  Completion completion;
  completion.text = "re: " + model.tokenizer->Decode(request.prompt_tokens, true).ValueOrDie();
  completion.tokens = {7, 8};
  if (completion.text.find("refuse") != std::string::npos) {
    completion.reason = FinishReason::kError;
    completion.error_code = "engine_failed";
  }
  return completion;
}

std::vector<std::string> SmallJob::Expected(bool has_model) {
  std::vector<std::string> lines;
  for (std::int64_t record = 1; record <= kRows; ++record) {
    const char* number = IsRefused(record) ? "REFUSE" : "ROW";
    std::string outcome = fmt::format("ok {}{} {}", has_model ? "RE: " : "", number, record);
    if (IsBroken(record)) {
      outcome = "error bad_json";
    } else if (record % 3 == 0) {
      outcome = "skipped";
    } else if (record % 5 == 0) {
      outcome = "error check_failed";
    } else if (has_model && IsRefused(record)) {
      outcome = "error engine_failed";
    }
    lines.push_back(fmt::format("{} {}", record, outcome));
  }
  return lines;
}

std::vector<std::string> SmallJob::Found(const std::string& output) const {
  namespace fs = std::filesystem;
  std::vector<std::string> lines;
  const fs::path path = PathOf(output);
  std::vector<fs::path> parts;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path)) parts.push_back(entry.path());
  } else if (fs::exists(path)) {
    parts.push_back(path);
  }
  std::sort(parts.begin(), parts.end());
  for (const fs::path& part : parts) AddRows(part.string(), lines);
  return lines;
}

RowCounts SmallJob::Counts(const std::vector<std::string>& lines) {
  RowCounts counts;
  for (const std::string& line : lines) {
    const std::string status = line.substr(line.find(' ') + 1);
    ++(status.starts_with("ok") ? counts.ok : status == "skipped" ? counts.skipped : counts.error);
  }
  return counts;
}

Result<JobReport> RunQuietly(Storage& storage, const JobOptions& options, std::stop_token stop) {
  JobMonitor monitor;
  return RunJob(storage, options, monitor, [](const std::string&) {}, std::move(stop));
}

}  // namespace millstream
