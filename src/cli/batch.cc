// SPDX-License-Identifier: Apache-2.0
// `millstream batch`: makes a job of OpenAI batch files and runs it.
#include <filesystem>
#include <memory>

#include "base/compact_json.h"
#include "cli/run_flags.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// What messages call the job, which stands in no file.
constexpr const char* kJobName = "millstream batch";

struct BatchFlags {
  RunFlags run;
  std::vector<std::string> inputs, more_inputs, base_urls, served_names;
  std::string output, errors, model, key_variable, max_errors;
  std::int64_t max_in_flight = 0;
};

Json ModelOf(const BatchFlags& flags) {
  Json model = {{"path", flags.model}};
  if (!flags.base_urls.empty()) {
    model = {{"engine", "openai"}, {"base_url", flags.base_urls}, {"model", flags.model}};
  }
  if (!flags.served_names.empty()) model["served_model_name"] = flags.served_names;
  if (!flags.key_variable.empty()) model["api_key"] = {{"env", flags.key_variable}};
  if (flags.max_in_flight > 0) model["max_in_flight"] = flags.max_in_flight;
  return model;
}

// The job's name: the output's, which may be a folder with a slash at its end.
std::string NameOf(const std::string& output) {
  const std::filesystem::path path(output.substr(0, output.find_last_not_of('/') + 1));
  return path.empty() ? "batch" : path.filename().string();
}

// JSON is YAML. A line a key, which messages name.
std::string JobText(const BatchFlags& flags) {
  Json output = {{"path", flags.output}, {"format", "openai-batch"}};
  if (!flags.errors.empty()) output["errors"] = flags.errors;
  const Json job = {
      {"name", NameOf(flags.output)},
      {"models", {{"model", ModelOf(flags)}}},
      {"input", {{"path", flags.inputs}, {"format", "openai-batch"}}},
      {"steps",
       Json::array({{{"generate", {{"model", "model"}, {"request", "body"}, {"as", "response"}}}}})
      },
      {"output", std::move(output)},
      // Every line is to get its line, also if all of them are refused.
      {"breaker", "off"}
  };
  std::string text;
  for (const auto& [key, value] : job.items()) {
    text += fmt::format("{}: {}\n", key, CompactJson(value));
  }
  // As written: in quotes a number is none.
  if (!flags.max_errors.empty()) text += fmt::format("max_errors: {}\n", flags.max_errors);
  return text;
}

CLI::Validator Limit() {
  return {
      [](std::string& text) {
        const bool is_plain =
            !text.empty() && text.find_first_not_of("0123456789.%") == std::string::npos;
        return is_plain ? std::string() : "must be a count such as 10 or a percentage such as 1%";
      },
      ""
  };
}

int RunBatch(BatchFlags& flags, CommandContext& context) {
  flags.inputs.insert(flags.inputs.end(), flags.more_inputs.begin(), flags.more_inputs.end());
  if (flags.inputs.empty()) {
    fmt::print(stderr, "millstream batch: INPUT.jsonl is missing; see `millstream batch --help`\n");
    return static_cast<int>(ExitCode::kWrong);
  }
  flags.run.job.file = kJobName;
  flags.run.job.text = JobText(flags);
  return RunWithFlags(flags.run, context);
}

void AddModelFlags(CLI::App& batch, BatchFlags& flags) {
  batch
      .add_option(
          "-m,--model",
          flags.model,
          "The model: a name, path or Hugging Face id, or with --base-url what the server calls it"
      )
      ->required()
      ->type_name("MODEL")
      ->check(NotEmpty());
  batch
      .add_option(
          "--served-model-name",
          flags.served_names,
          "Another name by which bodies may call the model; again for more"
      )
      ->type_name("NAME")
      ->allow_extra_args(false);
  CLI::Option* const url =
      batch
          .add_option(
              "--base-url",
              flags.base_urls,
              "Ask a server, as http://localhost:8000/v1; again for more, which share the load"
          )
          ->type_name("URL")
          ->allow_extra_args(false);
  batch
      .add_option(
          "--api-key-env",
          flags.key_variable,
          "The environment variable that holds the server's key"
      )
      ->type_name("NAME")
      ->needs(url);
  batch.add_option("--max-in-flight", flags.max_in_flight, "Requests at a time, at most")
      ->type_name("N")
      ->needs(url)
      ->check(AtLeastOne());
}

}  // namespace

void AddBatch(CLI::App& app, CommandContext& context) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* batch = app.add_subcommand("batch", "Run OpenAI batch files; run it again to resume");
  batch->add_option("input", flags->inputs, "Files of requests, one a line")
      ->type_name("INPUT.jsonl");
  batch->add_option("-i,--input-file", flags->more_inputs, "The same")
      ->type_name("INPUT.jsonl")
      ->allow_extra_args(false);
  batch
      ->add_option(
          "-o,--output,--output-file",
          flags->output,
          "Where the answers go, in the order of the requests: a .jsonl file, or a folder for parts"
      )
      ->required()
      ->take_last()  // one more is how to write elsewhere
      ->type_name("OUTPUT.jsonl")
      ->check(NotEmpty());
  batch
      ->add_option(
          "--errors", flags->errors, "A file for the failed lines alone (default: all in OUTPUT)"
      )
      ->type_name("ERRORS.jsonl")
      ->check(NotEmpty());
  AddModelFlags(*batch, *flags);
  batch
      ->add_option(
          "--max-errors",
          flags->max_errors,
          "End with exit code 2 if more lines failed: a count, or a percentage such as 1%"
      )
      ->type_name("N|N%")
      ->check(Limit());
  AddRunFlags(*batch, flags->run);
  batch->add_option("--limit", flags->run.job.limit, "A preview of so many lines; writes nothing")
      ->type_name("N")
      ->check(AtLeastOne());
  batch->footer(
      "Examples:\n"
      "  millstream batch requests.jsonl -o answers.jsonl --model smollm2-135m-instruct\n"
      "  millstream batch requests.jsonl -o answers.jsonl --errors failed.jsonl --model "
      "Qwen/Qwen3-8B --base-url http://gpu-1:8000/v1 --base-url http://gpu-2:8000/v1\n"
      "  millstream verify answers.jsonl\n"
      "docs/openai-batch.md says which keys of a request are honoured. Exit codes: as of run; 0 "
      "also if lines failed, unless --max-errors is given."
  );
  batch->callback([flags, &context] { context.exit_code = RunBatch(*flags, context); });
}

}  // namespace millstream
