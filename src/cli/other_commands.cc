// SPDX-License-Identifier: Apache-2.0
// The small commands: models, schema, init.
#include <filesystem>
#include <fstream>
#include <memory>

#include "cli/commands.h"
#include "cli/print.h"
#include "fmt/format.h"
#include "model/locate.h"
#include "pipeline/job_template.h"
#include "pipeline/parse_spec.h"

namespace millstream {
namespace {

int ListFound() {
  const auto models = ListModels(DefaultModelSearch(std::filesystem::current_path().string()));
  if (models.empty())
    fmt::print(
        "no models found: install a model package, or download one with `hf download ORG/REPO`\n"
    );
  for (const FoundModel& model : models) {
    const std::string what =
        model.problem.empty()
            ? fmt::format("{}, context {}", model.architecture, Grouped(model.context))
            : model.problem;
    fmt::print(
        "{:<32} {:>8.1f} MB  {}\n{:<32} {}\n",
        model.name,
        static_cast<double>(model.size_bytes) / 1e6,
        what,
        "",
        model.path
    );
  }
  return 0;
}

int Init(const std::string& path, const std::string& input, const std::string& column) {
  if (std::filesystem::exists(path)) {
    fmt::print(stderr, "millstream: {} exists: give another name\n", path);
    return 1;
  }
  std::ofstream file(path);
  file << JobTemplate(input, column);
  if (!file.flush()) {
    fmt::print(stderr, "millstream: cannot write {}\n", path);
    return 1;
  }
  fmt::print("wrote {}: edit it, then `millstream run {} --dry-run`\n", path, path);
  return 0;
}

}  // namespace

void AddModels(CLI::App& app, CommandContext& context) {
  app.add_subcommand("models", "List the models on this machine")->callback([&context] {
    context.exit_code = ListFound();
  });
}

void AddSchema(CLI::App& app, CommandContext& context) {
  app.add_subcommand("schema", "Print the JSON Schema of job files, for editors")
      ->callback([&context] {
        fmt::print("{}\n", JobFileSchema().dump(2));
        context.exit_code = 0;
      });
}

void AddInit(CLI::App& app, CommandContext& context) {
  struct Flags {
    std::string path = "job.yaml", input = "input.jsonl", column = "text";
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* init = app.add_subcommand("init", "Write a commented job file to start from");
  init->add_option("path", flags->path, "Where to (default: job.yaml)")->type_name("JOB.yaml");
  init->add_option("--input", flags->input, "The input file (default: input.jsonl)")
      ->type_name("FILE");
  init->add_option("--column", flags->column, "The column with the text (default: text)")
      ->type_name("NAME");
  init->footer("Example:\n  millstream init labels.yaml --input reviews.csv --column review");
  init->callback([flags, &context] {
    context.exit_code = Init(flags->path, flags->input, flags->column);
  });
}

}  // namespace millstream
