// SPDX-License-Identifier: Apache-2.0
#include "pipeline/parse_spec.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "fmt/format.h"
#include "pipeline/spec_build.h"
#include "pipeline/spec_check.h"
#include "pipeline/spec_keys.h"
#include "pipeline/spec_mistakes.h"
#include "pipeline/spec_overrides.h"
#include "pipeline/yaml_tree.h"

namespace millstream {
namespace {

constexpr std::uintmax_t kMaxJobFileBytes = 4 << 20;

/// Puts the content of the files that the spec names in the place of their names.
void InlineFiles(const JobSpec& spec, nlohmann::ordered_json& canonical) {
  for (std::size_t i = 0; i < spec.steps.size(); ++i) {
    const auto* generate = std::get_if<GenerateSpec>(&spec.steps[i].body);
    if (generate == nullptr || generate->is_score) continue;
    nlohmann::ordered_json& body = canonical["steps"][i]["generate"];
    if (generate->chat_template) body["chat_template"] = *generate->chat_template;
    if (generate->structured && body.contains("structured_outputs") &&
        body["structured_outputs"].contains("json")) {
      body["structured_outputs"]["json"] = generate->structured->schema;
    }
  }
}

/// Reads the text into `spec`; what is wrong goes to `mistakes`.
void Parse(
    const std::string& text, const SpecOverrides& overrides, JobSpec& spec, SpecMistakes& mistakes
) {
  auto root = ReadYaml(text, [&](int line, const std::string& path, const std::string& message) {
    mistakes.Add(mistakes.file(), {line, path}, message);
  });
  if (!root) return;
  if (!root->IsMap()) {
    mistakes.Add(
        *root,
        "",
        root->IsNull() ? "the file is empty" : "a job file is a mapping: input, steps, output"
    );
    return;
  }
  const ValueShape shape{.section = &JobSection()};
  ApplyOverrides(*root, overrides, mistakes);
  NormaliseTree(*root, shape);
  CheckTree(*root, shape, "", mistakes);
  BuildSpec(*root, spec, mistakes);
  if (!mistakes.empty()) return;
  spec.canonical = CanonicalJson(*root, shape, "", &spec.lines);
  InlineFiles(spec, spec.canonical);
}

}  // namespace

Result<JobSpec> ParseJobText(
    const std::string& text,
    const std::string& path,
    const SpecOverrides& overrides,
    std::vector<SpecMistake>* mistakes
) {
  JobSpec spec;
  std::error_code error;
  const std::filesystem::path file = std::filesystem::absolute(path, error).lexically_normal();
  spec.file = file.string();
  spec.folder = file.parent_path().string();
  spec.text = text;
  SpecMistakes found(path);
  Parse(text, overrides, spec, found);
  if (mistakes != nullptr) *mistakes = found.mistakes();
  if (!found.empty()) return found.ToStatus();
  return spec;
}

Result<JobSpec> ParseJobFile(
    const std::string& path, const SpecOverrides& overrides, std::vector<SpecMistake>* mistakes
) {
  const auto fail = [&](const std::string& message) {
    SpecMistakes found(path);
    found.Add(path, {}, message);
    if (mistakes != nullptr) *mistakes = found.mistakes();
    return found.ToStatus();
  };
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  if (kind == std::filesystem::file_type::not_found) return fail("there is no such file");
  if (kind == std::filesystem::file_type::directory) return fail("is a folder, not a job file");
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return fail("cannot be read");
  std::string text(kMaxJobFileBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) return fail("cannot be read");
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return ParseJobText(text, path, overrides, mistakes);
}

}  // namespace millstream
