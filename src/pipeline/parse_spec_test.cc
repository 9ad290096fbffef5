// SPDX-License-Identifier: Apache-2.0
#include "pipeline/parse_spec.h"

#include <gtest/gtest.h>

#include "fmt/format.h"

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

TEST(ParseSpecTest, AJobWithoutAModelHasLargerSplits) {
  const auto spec = Parse("input: a.csv\nsteps: [{set: {x: 1}}]\noutput: out\n");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->split_rows, 16384);
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

constexpr const char* kAll = R"(
models: {a: {path: m, context: 2048, memory: 1.5 GiB, threads: 4, compute: f32, engine: native, isolate: true, hang_seconds: 7}, b: org/repo@main}
input:
  path: [a.jsonl, "b/*.csv"]
  format: csv
  columns: [id, text]
  schema: {id: int64, extra: json, tags: "list<string>"}
  keep_job_columns: true
steps:
  - set: {n: 5, flag: true, text5: {value: 5, type: string}, quoted: "5", score: {value: "{{ a }}", type: double}}
  - id: talk
    generate:
      model: a
      messages:
        - {role: system, content: "You are {{ who }}."}
        - {role: user, content: [{type: text, text: "a"}, {type: text, text: "{{ b }}"}]}
      as: answer
      max_tokens: "{{ budget }}"
      temperature: 0.5
      stop: "###"
      stop_token_ids: [2, 7]
      include_stop_str_in_output: true
      ignore_eos: true
      n: 3
      seed: -9007199254740992
      chat_template: chatml.jinja
      chat_template_kwargs: {enable_thinking: false, level: 3, name: "3"}
      continue_final_message: true
      add_special_tokens: false
      parse_special: true
      on_overflow: {truncate: text, side: left}
      on_length: error
      reasoning: split
      keep_prompt: true
  - drop: [a]
  - rename: {old: new}
  - filter: "{{ x }}"
  - filter: "{{ y }}"
  - generate: {model: b, raw_prompt: "a", as: label, runaway: ignore, structured_outputs: {choice: [yes, 1.0, null, ~, "x y", é]}}
output: {path: out/rows.jsonl, rows: [skipped]}
max_errors: 12
split_rows: 1000000
seed: 9007199254740992
)";

Result<JobSpec> ParseHere(const std::string& text, const SpecOverrides& overrides = {}) {
  return ParseJobText(text, MS_TEST_DATA "/jobs/job.yaml", overrides);
}

TEST(ParseSpecTest, ReadsEveryKey) {
  const auto all = ParseHere(kAll);
  ASSERT_TRUE(all.ok()) << all.status().message();
  const JobSpec& spec = *all;
  EXPECT_EQ(spec.name, "job");
  const ModelSpec& model = spec.models.at("a");
  EXPECT_EQ(model.context, 2048);
  EXPECT_EQ(model.memory_bytes, 1610612736u);
  EXPECT_EQ(model.threads, 4);
  EXPECT_EQ(model.compute, "f32");
  EXPECT_TRUE(model.isolate);
  EXPECT_EQ(model.hang_seconds, 7);
  EXPECT_FALSE(spec.models.at("b").isolate);
  EXPECT_EQ(spec.models.at("b").hang_seconds, 60);
  EXPECT_EQ(spec.models.at("b").path, "org/repo@main");
  EXPECT_EQ(spec.input.paths, (std::vector<std::string>{"a.jsonl", "b/*.csv"}));
  EXPECT_EQ(spec.input.format, "csv");
  EXPECT_EQ(spec.input.columns, (std::vector<std::string>{"id", "text"}));
  ASSERT_EQ(spec.input.schema.size(), 3u);
  EXPECT_EQ(spec.input.schema[2].second, "list<string>");
  EXPECT_TRUE(spec.input.keep_job_columns);
  EXPECT_EQ(spec.steps[2].id, "drop1");
  EXPECT_EQ(std::get<RenameSpec>(spec.steps[3].body).columns[0].second, "new");
  EXPECT_EQ(spec.steps[5].id, "filter2");
  EXPECT_TRUE(spec.output.is_file);
  EXPECT_EQ(spec.output.format, "jsonl");
  EXPECT_TRUE(spec.output.keep_skipped && !spec.output.keep_ok && !spec.output.keep_errors);
  EXPECT_EQ(spec.max_errors->value, 12);
  EXPECT_FALSE(spec.max_errors->is_percent);
  EXPECT_EQ(spec.seed, 9007199254740992);
  EXPECT_EQ(spec.split_rows, 1000000);
}

TEST(ParseSpecTest, ReadsEveryKeyOfGenerate) {
  const auto all = ParseHere(kAll);
  ASSERT_TRUE(all.ok()) << all.status().message();
  EXPECT_EQ(all->steps[1].id, "talk");
  const auto& generate = std::get<GenerateSpec>(all->steps[1].body);
  ASSERT_EQ(generate.messages.size(), 2u);
  EXPECT_EQ(generate.messages[1].contents, (std::vector<std::string>{"a", "{{ b }}"}));
  EXPECT_EQ(std::get<std::string>(generate.numbers.at("max_tokens").value), "{{ budget }}");
  EXPECT_EQ(generate.stop, std::vector<std::string>{"###"});
  EXPECT_EQ(generate.stop_token_ids, (std::vector<std::int64_t>{2, 7}));
  EXPECT_TRUE(generate.include_stop_str_in_output && generate.ignore_eos && generate.parse_special);
  EXPECT_EQ(generate.n, 3);
  EXPECT_EQ(std::get<double>(generate.numbers.at("seed").value), -kLargestSeed);
  EXPECT_TRUE(generate.chat_template->starts_with("{% for m in messages %}"));
  EXPECT_EQ(
      generate.chat_template_kwargs.dump(), R"({"enable_thinking":false,"level":3,"name":"3"})"
  );
  EXPECT_EQ(generate.add_special_tokens, false);
  EXPECT_EQ(
      std::get<GenerateSpec>(all->steps.back().body).structured->choices,
      (std::vector<std::string>{"yes", "1.0", "null", "~", "x y", "é"})
  );
  EXPECT_TRUE(std::get<GenerateSpec>(all->steps.back().body).ignore_runaway);
  EXPECT_FALSE(generate.ignore_runaway);
  EXPECT_FALSE(generate.overflow_error);
  EXPECT_EQ(generate.truncate_columns, std::vector<std::string>{"text"});
  EXPECT_TRUE(
      generate.truncate_left && generate.length_error && generate.split_reasoning &&
      generate.keep_prompt
  );
  EXPECT_EQ(generate.places.at("on_length").path, "steps[1].generate.on_length");
}

TEST(ParseSpecTest, SetKeepsTheTypeOfPlainNumbersAndBooleans) {
  const auto all = ParseHere(kAll);
  ASSERT_TRUE(all.ok()) << all.status().message();
  const auto& columns = std::get<SetSpec>(all->steps[0].body).columns;
  EXPECT_EQ(columns[0].value, "{{ 5 }}");
  EXPECT_EQ(columns[1].value, "{{ true }}");
  EXPECT_EQ(columns[2].value, "5");
  EXPECT_EQ(columns[3].value, "5");
  EXPECT_EQ(columns[4].type, "double");
}

std::string Job(const std::string& generate) {
  return "input: a.jsonl\noutput: out\nsteps: [{generate: {model: m, as: answer, " + generate +
         "}}]\n";
}

Result<GenerateSpec> ParseGenerate(const std::string& generate) {
  MS_ASSIGN_OR_RETURN(const JobSpec spec, ParseHere(Job(generate)));
  return std::get<GenerateSpec>(spec.steps[0].body);
}

TEST(ParseSpecTest, TakesConstraintsInEachForm) {
  const auto inline_schema = ParseGenerate(
      "prompt: a, structured_outputs: {json: {type: object, enum: [yes, 1, 2.5, null]}}"
  );
  EXPECT_EQ(
      inline_schema->structured->schema.dump(), R"({"type":"object","enum":["yes",1,2.5,null]})"
  );
  const auto file = ParseGenerate("prompt: a, structured_outputs: {json: person.schema.json}");
  EXPECT_EQ(file->structured->schema["required"].dump(), R"(["name"])");
  const auto openai = ParseGenerate(
      R"(prompt: a, response_format: {"type": "json_schema", "json_schema": {"name": "p", "strict": true, "schema": {"type": "object"}}})"
  );
  EXPECT_EQ(openai->structured->schema.dump(), R"({"type":"object"})");
  EXPECT_EQ(
      ParseGenerate("prompt: a, response_format: {type: json_object}")->structured->schema.dump(),
      R"({"type":"object"})"
  );
  EXPECT_FALSE(ParseGenerate("prompt: a, response_format: {type: text}")->structured.has_value());
  EXPECT_EQ(
      ParseGenerate("prompt: a, structured_outputs: {choice: \"{{ labels }}\"}")
          ->structured->choice_column,
      "{{ labels }}"
  );
  EXPECT_EQ(
      ParseGenerate("prompt: a, structured_outputs: {regex: '[0-9]+'}")->structured->text, "[0-9]+"
  );
  EXPECT_EQ(ParseGenerate("messages: \"{{ chat }}\"")->messages_column, "chat");
  EXPECT_EQ(ParseGenerate("messages: chat")->messages_column, "chat");
}

TEST(ParseSpecTest, ReadsEveryKeyOfScore) {
  const auto spec = ParseHere(
      "input: a.jsonl\noutput: out\nsteps: [{score: {model: m, text: \"{{ text }}\", as: q, "
      "per_token: true, add_special_tokens: false, parse_special: true, "
      "on_overflow: {truncate: [text], side: left}}}]\n"
  );
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->steps[0].id, "q");
  EXPECT_EQ(spec->split_rows, 4096);
  const auto& score = std::get<GenerateSpec>(spec->steps[0].body);
  EXPECT_TRUE(score.is_score);
  EXPECT_TRUE(score.per_token);
  EXPECT_EQ(score.model, "m");
  EXPECT_EQ(score.raw_prompt, "{{ text }}");
  EXPECT_EQ(score.add_special_tokens, false);
  EXPECT_TRUE(score.parse_special);
  EXPECT_EQ(score.truncate_columns, std::vector<std::string>{"text"});
  EXPECT_TRUE(score.truncate_left);
  EXPECT_EQ(spec->canonical["steps"][0].size(), 1U);
}

TEST(ParseSpecTest, VarsKeepTheirTypeWhereTheyStandAlone) {
  const std::string text =
      Job("prompt: \"In ${lang}, $${not}: {{ x }}\", max_tokens: \"${limit}\", stop: \"${stops}\""
      ) +
      "vars: {lang: German, limit: 8, stops: [a, b]}\n";
  const auto spec = ParseHere(text);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const auto& generate = std::get<GenerateSpec>(spec->steps[0].body);
  EXPECT_EQ(generate.prompt, "In German, ${not}: {{ x }}");
  EXPECT_EQ(std::get<double>(generate.numbers.at("max_tokens").value), 8);
  EXPECT_EQ(generate.stop, (std::vector<std::string>{"a", "b"}));
  const auto changed =
      ParseHere(text, {.vars = {{"lang", "French: x"}, {"limit", "9"}}, .sets = {}, .output = ""});
  const auto& other = std::get<GenerateSpec>(changed->steps[0].body);
  EXPECT_EQ(other.prompt, "In French: x, ${not}: {{ x }}");
  EXPECT_EQ(std::get<double>(other.numbers.at("max_tokens").value), 9);
  EXPECT_NE(spec->canonical, changed->canonical);
  EXPECT_FALSE(spec->canonical.contains("vars"));
}

std::string SaidOfSet(const std::string& path, const std::string& value) {
  SpecOverrides overrides;
  overrides.sets = {{path, value}};
  const auto result = Parse(kGlosses, overrides);
  return result.ok() ? "" : result.status().message();
}

TEST(ParseSpecTest, SetsThatFitNothingAreMistakesOfTheCommandLine) {
  EXPECT_EQ(
      SaidOfSet("steps.answr.max_tokens", "8"),
      "--set: steps.answr.max_tokens: no step is called `answr`; did you mean `answer`?"
  );
  EXPECT_EQ(
      SaidOfSet("steps.answer.max_new_tokens", "8"),
      "--set: steps.answer.max_new_tokens: is called `max_tokens` here"
  );
  EXPECT_EQ(
      SaidOfSet("steps.answer.max_tokens", "-8"),
      "--set: steps[2].generate.max_tokens: must be at least 1, not -8"
  );
  EXPECT_EQ(
      SaidOfSet("steps.answer.max_tokens", ""), "--set: steps.answer.max_tokens: has no value"
  );
  EXPECT_EQ(
      SaidOfSet("steps.answer.max_tokens.x", "1"),
      "--set: steps.answer.max_tokens.x: there is nothing below `max_tokens`"
  );
  EXPECT_EQ(
      SaidOfSet("steps.answer.temperature", "{{ x }}"),
      "--set: steps.answer.temperature: put quotes around the expression: \"{{ x }}\""
  );
  EXPECT_EQ(
      SaidOfSet("outptu.format", "csv"), "--set: outptu.format: unknown key; did you mean `output`?"
  );
  EXPECT_EQ(SaidOfSet("", "csv"), "--set: names no key");
}

TEST(ParseSpecTest, SetsReachEveryKey) {
  SpecOverrides overrides;
  overrides.sets = {
      {"steps.answer.structured_outputs.choice", "[a, b]"},
      {"steps[2].generate.max_tokens", "7"},
      {"steps.filter1", "'{{ id }}'"},
      {"steps.check1.code", "other"},
      {"steps.4.select[0]", "word"},
      {"models.judge.path", "other"},
      {"input.format", "csv"},
      {"max_errors", "null"},
      {"steps.answer.on_overflow.truncate", "[text]"},
      {"steps.answer.generate.chat_template_kwargs.a.b", "1"}
  };
  const auto spec = Parse(kGlosses, overrides);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const auto& generate = std::get<GenerateSpec>(spec->steps[2].body);
  EXPECT_EQ(generate.structured->choices, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(std::get<double>(generate.numbers.at("max_tokens").value), 7);
  EXPECT_EQ(generate.truncate_columns, std::vector<std::string>{"text"});
  EXPECT_EQ(generate.chat_template_kwargs.dump(), R"({"a":{"b":1}})");
  EXPECT_EQ(std::get<FilterSpec>(spec->steps[1].body).expression, "{{ id }}");
  EXPECT_EQ(std::get<CheckSpec>(spec->steps[3].body).code, "other");
  EXPECT_EQ(std::get<SelectSpec>(spec->steps[4].body).columns[0], "word");
  EXPECT_EQ(spec->models.at("judge").path, "other");
  EXPECT_EQ(spec->input.format, "csv");
  EXPECT_FALSE(spec->max_errors.has_value());
  EXPECT_EQ(spec->lines.at("steps[2].generate.max_tokens"), 0);
}

TEST(ParseSpecTest, VarsOfTheCommandLineThatNothingUsesAreMistakes) {
  SpecOverrides overrides;
  overrides.vars = {{"lnag", "x"}};
  const auto result = Parse(std::string(kGlosses) + "vars: {lang: German}\n", overrides);
  EXPECT_EQ(result.status().message(), "--var: lnag: no such var; did you mean `lang`?");
}

TEST(ParseSpecTest, TheOutputOfTheCommandLineReplacesPathAndFormat) {
  SpecOverrides overrides;
  overrides.output = "/tmp/x.csv";
  const auto spec = Parse(kGlosses, overrides);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->output.path, "/tmp/x.csv");
  EXPECT_EQ(spec->output.format, "csv");
  EXPECT_TRUE(spec->output.is_file);
  EXPECT_TRUE(Parse("input: a.jsonl\n", overrides).ok());
}

TEST(ParseSpecTest, AnchorsAndMergeKeysWork) {
  const auto spec = ParseHere(R"(
input: a.jsonl
output: out
steps:
  - generate: &base {model: m, prompt: a, as: one, temperature: 0}
  - generate: {<<: *base, as: two, max_tokens: 3}
)");
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  const auto& two = std::get<GenerateSpec>(spec->steps[1].body);
  EXPECT_EQ(two.as, "two");
  EXPECT_EQ(two.model, "m");
  EXPECT_EQ(two.numbers.size(), 2u);
}

TEST(ParseSpecTest, CanonicalIsTheSameForTheSameJob) {
  const auto a = ParseHere("input: a.jsonl\noutput: out\nsteps: [{set: {x: \"1\"}}]\n");
  const auto b = ParseHere(
      "# the same\nsteps: [{set: {x: {value: \"1\"}}}]\nname: other\nseed: 0\nmax_errors: 3\n"
      "input: {path: a.jsonl, keep_job_columns: false}\noutput: {path: elsewhere, rows: [ok, "
      "error]}\n"
  );
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->canonical.dump(), b->canonical.dump());
  EXPECT_EQ(
      a->canonical.dump(),
      R"({"input":{"path":"a.jsonl"},"steps":[{"set":{"x":{"value":"1"}}}],"output":{}})"
  );
  const auto file = ParseHere(Job("prompt: a, structured_outputs: {json: person.schema.json}"));
  EXPECT_EQ(
      file->canonical["steps"][0]["generate"]["structured_outputs"]["json"]["type"], "object"
  );
}

TEST(ParseSpecTest, WhatIsTooLargeOrTooDeepIsRefused) {
  const auto said = [](const std::string& text) { return Parse(text).status().message(); };
  EXPECT_EQ(said(std::string(5 << 20, '#')), "/jobs/job.yaml:1: is larger than 4 MiB");
  EXPECT_FALSE(Parse(std::string(20'000, '[')).ok());
  EXPECT_EQ(
      said("a: " + std::string(150, '[') + std::string(150, ']')),
      "/jobs/job.yaml:1: nests deeper than 100"
  );
  EXPECT_EQ(said("input: \xff\n"), "/jobs/job.yaml:1: is not valid UTF-8");
  EXPECT_EQ(said(std::string("a: b\nc: \0", 9)), "/jobs/job.yaml:2: holds a NUL byte");
  std::string deep = "a0: &a0 [x]\n";
  for (int i = 1; i < 200; ++i) {
    deep += fmt::format("a{0}: &a{0} [*a{1}]\n", i, i - 1);
  }
  EXPECT_EQ(said(deep), "/jobs/job.yaml:99: nests deeper than 100");
}

TEST(ParseSpecTest, FilesThatCannotBeReadAreMistakes) {
  EXPECT_EQ(
      ParseJobFile("/no/such.yaml", {}).status().message(), "/no/such.yaml: there is no such file"
  );
  EXPECT_EQ(ParseJobFile("/tmp", {}).status().message(), "/tmp: is a folder, not a job file");
}

}  // namespace
}  // namespace millstream
