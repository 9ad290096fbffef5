// SPDX-License-Identifier: Apache-2.0
// The table of keys against everything that must agree with it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "data/input.h"
#include "data/writer.h"
#include "pipeline/job_template.h"
#include "pipeline/parse_spec.h"
#include "pipeline/sampling_settings.h"
#include "pipeline/spec_check.h"
#include "pipeline/spec_keys.h"
#include "pipeline/spec_mistakes.h"

namespace millstream {
namespace {

constexpr const char* kDoc = MS_SOURCE_DIR "/docs/job-file.md";
constexpr std::string_view kMark = "<!-- reference -->\n";

std::string ReadText(const char* path) {
  std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

const SpecSection& SectionCalled(std::string_view name) {
  for (const SpecSection* section : AllSections()) {
    if (section->name == name) return *section;
  }
  return JobSection();
}

/// What is said about `value` under a key.
std::string Said(const SpecKey& key, std::string_view value) {
  SpecMistakes mistakes("table");
  std::string text = std::string(key.name) + ": " + std::string(value);
  auto root = ReadYaml(text, [&](int line, const std::string& path, const std::string& message) {
    mistakes.Add("table", {line, path}, message);
  });
  if (root && root->IsMap()) {
    NormaliseTree(root->children[0], key.shape);
    CheckTree(root->children[0], key.shape, std::string(key.name), mistakes);
  }
  return mistakes.empty() ? "" : mistakes.ToStatus().message();
}

TEST(SpecTableTest, ExamplesAndDefaultsAreAccepted) {
  for (const SpecSection* section : AllSections()) {
    for (const SpecKey& key : section->keys) {
      EXPECT_FALSE(key.example.empty() || key.doc.empty()) << key.name;
      EXPECT_EQ(Said(key, key.example), "") << section->name;
      if (!key.default_value.empty()) {
        EXPECT_EQ(Said(key, key.default_value), "");
      }
    }
  }
}

TEST(SpecTableTest, ForeignNamesLeadToKeysAndAreNone) {
  for (const SpecSection* section : AllSections()) {
    for (const ForeignName& foreign : section->foreign) {
      EXPECT_EQ(section->Find(foreign.name), nullptr) << section->name << ": " << foreign.name;
      const bool leads =
          foreign.ours.empty() ? !foreign.note.empty() : section->Find(foreign.ours) != nullptr;
      EXPECT_TRUE(leads) << section->name << ": " << foreign.name;
    }
    for (const std::string_view name : section->one_of) {
      EXPECT_NE(section->Find(name), nullptr) << name;
    }
  }
}

TEST(SpecTableTest, RangesAreTheOnesThatRowsAreHeldTo) {
  const SpecSection& generate = SectionCalled("generate");
  for (const SamplingKey& sampling : SamplingKeys()) {
    const SpecKey* key = generate.Find(sampling.name);
    ASSERT_NE(key, nullptr) << sampling.name;
    EXPECT_EQ(key->shape.scalar == ScalarType::kRowInteger, sampling.is_integer) << sampling.name;
    EXPECT_EQ(key->shape.range.min, sampling.min) << sampling.name;
    EXPECT_EQ(key->shape.range.max, sampling.max) << sampling.name;
    EXPECT_EQ(key->shape.range.min_open, sampling.min_is_open) << sampling.name;
  }
}

TEST(SpecTableTest, FormatsAreTheOnesThatAreReadAndWritten) {
  for (const std::string_view word : SectionCalled("input").Find("format")->shape.words) {
    if (word == "openai-batch") continue;  // JSON lines of known columns: job/plan.cc
    EXPECT_TRUE(FormatFromName(word).has_value()) << word;
  }
  for (const std::string_view word : SectionCalled("output").Find("format")->shape.words) {
    EXPECT_TRUE(OutputFormatFromName(word).ok()) << word;
  }
}

TEST(SpecTableTest, TheReferenceOfTheDocumentIsTheTables) {
  const std::string doc = ReadText(kDoc);
  const std::size_t mark = doc.find(kMark);
  ASSERT_NE(mark, std::string::npos);
  const std::string head = doc.substr(0, mark + kMark.size());
  if (std::getenv("MS_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(kDoc) << head << "\n" << JobFileReference();
  }
  EXPECT_EQ(ReadText(kDoc), head + "\n" + JobFileReference());
}

TEST(SpecTableTest, TheExampleOfTheDocumentIsAJob) {
  const std::string doc = ReadText(kDoc);
  const std::size_t begin = doc.find("```yaml\n") + 8;
  const auto spec =
      ParseJobText(doc.substr(begin, doc.find("```", begin) - begin), "/jobs/a.yaml", {});
  EXPECT_TRUE(spec.ok()) << spec.status().message();
}

TEST(SpecTableTest, TheSchemaHasEveryKey) {
  const auto schema = JobFileSchema();
  EXPECT_EQ(schema["properties"].size(), JobSection().keys.size());
  EXPECT_EQ(schema["$defs"].size() + 1, AllSections().size());
  const auto& generate = schema["$defs"]["generate"];
  EXPECT_EQ(generate["properties"].size(), SectionCalled("generate").keys.size());
  EXPECT_EQ(generate["additionalProperties"], false);
  EXPECT_EQ(generate["required"].dump(), R"(["model","as"])");
  EXPECT_EQ(
      generate["properties"]["top_p"]["anyOf"][0].dump(),
      R"({"type":"number","exclusiveMinimum":0,"maximum":1})"
  );
}

TEST(SpecTableTest, TheTemplateIsAJobForAnyInput) {
  const std::pair<std::string, std::string> cases[] = {
      {"input.txt", "text"},
      {"data/my rows.jsonl.gz", "Customer Name"},
      {"a\"b\\c${d}.csv", "it's \"so\" \\ ${here}"},
  };
  for (const auto& [input, column] : cases) {
    const auto spec = ParseJobText(JobTemplate(input, column), "/jobs/job.yaml", {});
    ASSERT_TRUE(spec.ok()) << spec.status().message();
    EXPECT_EQ(spec->input.paths, std::vector<std::string>{input});
    const auto& generate = std::get<GenerateSpec>(spec->steps[1].body);
    EXPECT_EQ(generate.truncate_columns, std::vector<std::string>{column});
    EXPECT_EQ(generate.structured->choices.size(), 2u);
  }
  const auto spec = ParseJobText(JobTemplate("a.csv", "it's \\"), "/jobs/job.yaml", {});
  EXPECT_EQ(
      std::get<FilterSpec>(spec->steps[0].body).expression,
      R"({{ row['it\'s \\']|default('')|length > 0 }})"
  );
  EXPECT_EQ(spec->output.path, "out/a-labels");
}

}  // namespace
}  // namespace millstream
