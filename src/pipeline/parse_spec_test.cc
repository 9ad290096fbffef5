// SPDX-License-Identifier: Apache-2.0
#include "pipeline/parse_spec.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

constexpr const char* kGlosses = R"(name: glosses
models:
  writer: {path: smollm2-135m-instruct}
input:  {path: glosses.jsonl}
steps:
  - set:      {title: "{{ text[:40] }}"}
  - filter:   "{{ text|length > 20 }}"
  - generate:
      model: writer
      system: "You are a lexicographer."
      prompt: "Explain in one sentence: {{ text }}"
      as: answer
      max_tokens: 64
      temperature: 0
  - check:    {that: "{{ answer|length > 0 }}", code: empty_answer}
  - select:   [id, answer]
output: {path: out/glosses, format: parquet}
max_errors: 1%
)";

Result<JobSpec> Parse(const std::string& text, const SpecOverrides& overrides = {}) {
  return ParseJobText(text, "/jobs/job.yaml", overrides);
}

TEST(ParseSpecTest, ReadsTheExampleWithDefaults) {
  const auto result = Parse(kGlosses);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const JobSpec& spec = *result;
  EXPECT_EQ(spec.name, "glosses");
  EXPECT_EQ(spec.folder, "/jobs");
  EXPECT_EQ(spec.models.at("writer").path, "smollm2-135m-instruct");
  EXPECT_EQ(spec.models.at("writer").compute, "auto");
  EXPECT_EQ(spec.input.paths, std::vector<std::string>{"glosses.jsonl"});
  ASSERT_EQ(spec.steps.size(), 5u);
  EXPECT_EQ(spec.steps[0].id, "set1");
  EXPECT_EQ(std::get<SetSpec>(spec.steps[0].body).columns[0].value, "{{ text[:40] }}");
  EXPECT_EQ(spec.steps[1].id, "filter1");
  EXPECT_EQ(std::get<FilterSpec>(spec.steps[1].body).place.line, 7);
  EXPECT_EQ(spec.steps[2].id, "answer");
  const auto& generate = std::get<GenerateSpec>(spec.steps[2].body);
  EXPECT_EQ(generate.prompt, "Explain in one sentence: {{ text }}");
  EXPECT_EQ(std::get<double>(generate.numbers.at("max_tokens").value), 64);
  EXPECT_EQ(generate.numbers.at("max_tokens").place.path, "steps[2].generate.max_tokens");
  EXPECT_EQ(generate.numbers.at("max_tokens").place.line, 13);
  EXPECT_FALSE(generate.structured.has_value());
  EXPECT_EQ(std::get<CheckSpec>(spec.steps[3].body).code, "empty_answer");
  EXPECT_EQ(
      std::get<SelectSpec>(spec.steps[4].body).columns, (std::vector<std::string>{"id", "answer"})
  );
  EXPECT_EQ(spec.output.path, "out/glosses");
  EXPECT_TRUE(spec.output.keep_ok && spec.output.keep_errors && !spec.output.keep_skipped);
  EXPECT_EQ(spec.max_errors->value, 1);
  EXPECT_TRUE(spec.max_errors->is_percent);
  EXPECT_EQ(spec.split_rows, 4096);
  EXPECT_EQ(spec.lines.at("steps[2].generate.max_tokens"), 13);
}

TEST(ParseSpecTest, ReportsEveryMistakeWithFileLineAndPath) {
  std::string text = kGlosses;
  text.replace(text.find("max_tokens"), 10, "max_new_tokens");
  text.replace(text.find("temperature: 0"), 14, "temperature: -1");
  const auto result = Parse(text);
  EXPECT_EQ(
      result.status().message(),
      "/jobs/job.yaml:13: steps[2].generate.max_new_tokens: is called `max_tokens` here\n"
      "/jobs/job.yaml:14: steps[2].generate.temperature: must be at least 0, not -1"
  );
}

TEST(ParseSpecTest, ReadsPastAnExpressionWithoutQuotes) {
  std::string text = kGlosses;
  text.replace(text.find("\"{{ text|length > 20 }}\""), 24, "{{ text|length > 20 }}");
  const auto result = Parse(text + "sed: 1\n");
  EXPECT_EQ(
      result.status().message(),
      "/jobs/job.yaml:7: steps[1].filter: put quotes around the expression: \"{{ text|length > 20 "
      "}}\"\n"
      "/jobs/job.yaml:19: sed: unknown key; did you mean `seed`?"
  );
}

TEST(ParseSpecTest, SetsAndVarsOfTheCommandLineReplaceTheFiles) {
  SpecOverrides overrides;
  overrides.vars = {{"tokens", "9"}};
  overrides.sets = {
      {"steps.answer.max_tokens", "${tokens}"},
      {"models.writer.context", "1024"},
      {"output.format", "jsonl"}
  };
  const auto result = Parse(std::string(kGlosses) + "vars: {tokens: 5}\n", overrides);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto& generate = std::get<GenerateSpec>(result->steps[2].body);
  EXPECT_EQ(std::get<double>(generate.numbers.at("max_tokens").value), 9);
  EXPECT_EQ(result->models.at("writer").context, 1024);
  EXPECT_EQ(result->output.format, "jsonl");
}

}  // namespace
}  // namespace millstream
