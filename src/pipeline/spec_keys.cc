// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "fmt/format.h"
#include "pipeline/spec_foreign.h"

namespace millstream {
namespace {

using enum ScalarType;

constexpr NumberRange AtLeast(double min) {
  return {.min = min};
}
constexpr NumberRange Above(double min) {
  return {.min = min, .min_open = true};
}
constexpr NumberRange Between(double min, double max) {
  return {.min = min, .max = max};
}
constexpr NumberRange AboveUpTo(double min, double max) {
  return {min, max, true};
}
constexpr double kMaxInt32 = 2147483647;

constexpr ValueShape kTextValue{.scalar = kText};
constexpr ValueShape kBoolValue{.scalar = kBool};
constexpr ValueShape kTemplateValue{.scalar = kTemplate};
constexpr ValueShape kScalarValue{.scalar = kScalar};
constexpr ValueShape kTokenId{.scalar = kInteger, .range = Between(0, kMaxInt32)};
constexpr ValueShape kTextList{.items = &kTextValue};
constexpr ValueShape kTextOrList{.scalar = kText, .items = &kTextValue};
constexpr ValueShape kTextMap{.values = &kTextValue};
constexpr ValueShape kAnyMapping{.any_mapping = true};
constexpr ValueShape kAnyValue{.scalar = kScalar, .items = &kScalarValue, .any_mapping = true};

constexpr std::array<std::string_view, 8> kInputFormats{
    "jsonl", "json", "csv", "tsv", "text", "parquet", "arrow", "arrows"
};
constexpr std::array<std::string_view, 4> kOutputFormats{"parquet", "jsonl", "csv", "arrow"};
constexpr std::array<std::string_view, 3> kRowKinds{"ok", "error", "skipped"};
constexpr std::array<std::string_view, 3> kComputes{"auto", "f32", "bf16"};
constexpr std::array<std::string_view, 1> kEngines{"native"};
constexpr std::array<std::string_view, 2> kSides{"right", "left"};
constexpr std::array<std::string_view, 1> kOverflows{"error"};
constexpr std::array<std::string_view, 2> kLengths{"keep", "error"};
constexpr std::array<std::string_view, 2> kReasonings{"keep", "split"};
constexpr std::array<std::string_view, 1> kParts{"text"};
constexpr std::array<std::string_view, 3> kResponseFormats{"json_schema", "json_object", "text"};
constexpr ValueShape kRowKind{.scalar = kWord, .words = kRowKinds};

constexpr SpecKey kModelKeys[] = {
    {.name = "path",
     .shape = kTextValue,
     .doc = "A file, a folder, the name of an installed model package, or a Hugging Face id.",
     .example = "smollm2-135m-instruct",
     .required = true},
    {.name = "engine",
     .shape =
         {.scalar = kWord,
          .words = kEngines,
          .words_note = "other engines are not available in this version"},
     .default_value = "native",
     .doc = "What runs the model. This version has its own engine only.",
     .example = "native"},
    {.name = "context",
     .shape = {.scalar = kInteger, .range = Between(1, kMaxInt32)},
     .default_note = "the model's",
     .doc = "Tokens that prompt and answer may have together.",
     .example = "4096"},
    {.name = "memory",
     .shape = {.scalar = kSize, .range = Above(0)},
     .default_note = "fitted to the machine",
     .doc = "Memory for the KV cache.",
     .example = "4GiB",
     .changes_rows = false},
    {.name = "threads",
     .shape = {.scalar = kInteger, .range = Between(1, 4096)},
     .default_note = "all cores",
     .doc = "Compute threads. The answers do not depend on it.",
     .example = "8",
     .changes_rows = false},
    {.name = "compute",
     .shape = {.scalar = kWord, .words = kComputes},
     .default_value = "auto",
     .doc = "Arithmetic: `auto` is the fastest that keeps the weights' precision.",
     .example = "f32"},
};
constexpr SpecSection kModel{
    .name = "models.NAME",
    .doc = "One model, under the name that steps use. A string alone is its `path`.",
    .keys = kModelKeys,
    .foreign = kModelForeign,
    .shorthand = "path"
};
constexpr ValueShape kModelValue{.scalar = kText, .section = &kModel};

constexpr SpecKey kInputKeys[] = {
    {.name = "path",
     .shape = kTextOrList,
     .doc = "Files, globs or folders, relative to the job file.",
     .example = "[data/*.jsonl, more.csv.gz]",
     .required = true},
    {.name = "format",
     .shape = {.scalar = kWord, .words = kInputFormats},
     .default_note = "from each file's suffix",
     .doc = "The files' format. `text` makes each line a row with the one column `text`.",
     .example = "jsonl"},
    {.name = "columns",
     .shape = kTextList,
     .default_note = "all",
     .doc = "The columns to read.",
     .example = "[id, text]"},
    {.name = "schema",
     .shape = kTextMap,
     .default_note = "inferred",
     .doc = "Types of columns. `json` keeps any value as its JSON text.",
     .example = "{id: int64, tags: list<string>, extra: json}"},
    {.name = "keep_job_columns",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Reads another job's output as it is: failed rows and columns that begin with `_` too.",
     .example = "true"},
};
constexpr SpecSection kInput{
    .name = "input",
    .doc = "Where the rows come from. A string or a list alone is the `path`.",
    .keys = kInputKeys,
    .foreign = kInputForeign,
    .shorthand = "path"
};

constexpr SpecKey kSetValueKeys[] = {
    {.name = "value",
     .shape = kScalarValue,
     .doc = "The value: a template, or a scalar.",
     .example = "\"{{ score * 100 }}\"",
     .required = true},
    {.name = "type",
     .shape = kTextValue,
     .default_note = "from a sample of rows",
     .doc = "The column's type. A row whose value does not fit is an error.",
     .example = "int64"},
};
constexpr SpecSection kSetValue{
    .name = "set.COLUMN",
    .doc = "One column. A scalar alone is its `value`.",
    .keys = kSetValueKeys,
    .foreign = kSetValueForeign,
    .shorthand = "value"
};
constexpr ValueShape kSetColumn{.scalar = kScalar, .section = &kSetValue};

constexpr SpecKey kCheckKeys[] = {
    {.name = "that",
     .shape = {.scalar = kExpression},
     .doc = "What must be true of a row.",
     .example = "\"{{ answer|length > 0 }}\"",
     .required = true},
    {.name = "code",
     .shape = kTextValue,
     .default_value = "check_failed",
     .doc = "The error's code: lower case letters, digits and `_`.",
     .example = "empty_answer"},
    {.name = "message",
     .shape = kTemplateValue,
     .default_note = "names the expression",
     .doc = "The error's message, a template over the row.",
     .example = "\"no answer for {{ id }}\""},
};
constexpr SpecSection kCheck{
    .name = "check",
    .doc = "Rows for which `that` is not true are errors.",
    .keys = kCheckKeys,
    .foreign = kCheckForeign
};

constexpr SpecKey kPartKeys[] = {
    {.name = "type",
     .shape =
         {.scalar = kWord,
          .words = kParts,
          .words_note = "other parts are not served in this version"},
     .doc = "What the part is. This version serves text only.",
     .example = "text",
     .required = true},
    {.name = "text",
     .shape = kTemplateValue,
     .doc = "The part's text, a template over the row.",
     .example = "\"{{ text }}\"",
     .required = true},
};
constexpr SpecSection kPart{
    .name = "messages[].content[]",
    .doc = "One part of a message.",
    .keys = kPartKeys,
    .foreign = kPartForeign
};
constexpr ValueShape kPartValue{.section = &kPart};

constexpr SpecKey kMessageKeys[] = {
    {.name = "role",
     .shape = kTemplateValue,
     .doc = "Who says it: what the model's chat template knows, a template over the row.",
     .example = "user",
     .required = true},
    {.name = "content",
     .shape = {.scalar = kTemplate, .items = &kPartValue},
     .doc = "What is said: a template over the row, or a list of parts.",
     .example = "\"{{ text }}\"",
     .required = true},
};
constexpr SpecSection kMessage{
    .name = "messages[]",
    .doc = "One message of the conversation.",
    .keys = kMessageKeys,
    .foreign = kMessageForeign
};
constexpr ValueShape kMessageValue{.section = &kMessage};

constexpr SpecKey kOverflowKeys[] = {
    {.name = "truncate",
     .shape = kTextOrList,
     .doc = "Columns whose text may be cut, the first one first. The template is never cut.",
     .example = "[text]",
     .required = true},
    {.name = "side",
     .shape = {.scalar = kWord, .words = kSides},
     .default_value = "right",
     .doc = "The side that is cut away.",
     .example = "left"},
};
constexpr SpecSection kOverflow{
    .name = "on_overflow",
    .doc = "What is cut when prompt and `max_tokens` exceed the context.",
    .keys = kOverflowKeys,
    .foreign = kOverflowForeign
};

constexpr SpecKey kStructuredKeys[] = {
    {.name = "json",
     .shape = {.scalar = kText, .any_mapping = true},
     .doc = "A JSON Schema, or a file with one, relative to the job file.",
     .example = "{type: object, properties: {name: {type: string}}, required: [name]}"},
    {.name = "choice",
     .shape = {.scalar = kExpression, .items = &kScalarValue},
     .doc =
         "The answers to choose from, taken as written, or one expression that gives them per row.",
     .example = "[positive, negative]"},
    {.name = "regex",
     .shape = kTextValue,
     .doc = "A regular expression that the whole answer matches.",
     .example = "'[0-9]{4}'"},
    {.name = "grammar",
     .shape = kTextValue,
     .doc = "A context-free grammar in llguidance's Lark notation.",
     .example = "'start: \"yes\" | \"no\"'"},
};
constexpr SpecSection kStructured{
    .name = "structured_outputs",
    .doc = "What the answer must look like: exactly one of these.",
    .keys = kStructuredKeys,
    .foreign = kStructuredForeign
};

constexpr SpecKey kJsonSchemaKeys[] = {
    {.name = "name", .shape = kTextValue, .doc = "Taken and not used.", .example = "person"},
    {.name = "description", .shape = kTextValue, .doc = "Taken and not used.", .example = "A person"
    },
    {.name = "schema",
     .shape = kAnyMapping,
     .doc = "The JSON Schema.",
     .example = "{type: object, properties: {name: {type: string}}}",
     .required = true},
    {.name = "strict",
     .shape = kBoolValue,
     .doc = "Taken and not used: answers always follow the schema.",
     .example = "true"},
};
constexpr SpecSection kJsonSchema{
    .name = "response_format.json_schema",
    .doc = "OpenAI's wrapper of a schema.",
    .keys = kJsonSchemaKeys
};
constexpr SpecKey kResponseFormatKeys[] = {
    {.name = "type",
     .shape = {.scalar = kWord, .words = kResponseFormats},
     .doc = "`json_object` is any JSON object, `text` no constraint.",
     .example = "json_object",
     .required = true},
    {.name = "json_schema",
     .shape = {.section = &kJsonSchema},
     .doc = "With `type: json_schema`, the schema.",
     .example = "{name: person, schema: {type: object}}"},
};
constexpr SpecSection kResponseFormat{
    .name = "response_format",
    .doc = "OpenAI's `response_format`, as pasted.",
    .keys = kResponseFormatKeys,
    .foreign = kResponseFormatForeign
};

constexpr SpecKey kGenerateKeys[] = {
    {.name = "model",
     .shape = kTextValue,
     .doc = "A name from `models`, or a path, package or Hugging Face id directly.",
     .example = "writer",
     .required = true},
    {.name = "prompt",
     .shape = kTemplateValue,
     .doc = "The user's message. One of `prompt`, `messages` and `raw_prompt` is needed.",
     .example = "\"Explain in one sentence: {{ text }}\""},
    {.name = "system",
     .shape = kTemplateValue,
     .default_note = "none",
     .doc = "The system message that goes with `prompt`.",
     .example = "\"You are a lexicographer.\""},
    {.name = "messages",
     .shape = {.scalar = kText, .items = &kMessageValue},
     .doc = "The whole conversation, or the name of a column that holds one.",
     .example = "[{role: user, content: \"{{ text }}\"}]"},
    {.name = "raw_prompt",
     .shape = kTemplateValue,
     .doc = "The text that the model continues, without a chat template.",
     .example = "\"Q: {{ question }}\\nA:\""},
    {.name = "as",
     .shape = kTextValue,
     .doc = "The output column, and the step's id unless `id` is given.",
     .example = "answer",
     .required = true},
    {.name = "max_tokens",
     .shape = {.scalar = kRowInteger, .range = Between(1, kMaxInt32)},
     .default_note = "the model's, else 512",
     .doc = "Tokens that an answer may have.",
     .example = "64"},
    {.name = "min_tokens",
     .shape = {.scalar = kRowInteger, .range = Between(0, kMaxInt32)},
     .default_note = "the model's, else 0",
     .doc = "Tokens before an answer may end.",
     .example = "1"},
    {.name = "temperature",
     .shape = {.scalar = kRowNumber, .range = AtLeast(0)},
     .default_note = "the model's, else 1",
     .doc = "Randomness; 0 always takes the likeliest token.",
     .example = "0.7"},
    {.name = "top_k",
     .shape = {.scalar = kRowInteger, .range = Between(-1, kMaxInt32)},
     .default_note = "the model's, else 0",
     .doc = "Draws from the k likeliest tokens; 0 or -1 from all.",
     .example = "40"},
    {.name = "top_p",
     .shape = {.scalar = kRowNumber, .range = AboveUpTo(0, 1)},
     .default_note = "the model's, else 1",
     .doc = "Draws from the likeliest tokens that together have this probability.",
     .example = "0.95"},
    {.name = "min_p",
     .shape = {.scalar = kRowNumber, .range = Between(0, 1)},
     .default_note = "the model's, else 0",
     .doc = "Draws from tokens with at least this share of the likeliest one's probability.",
     .example = "0.05"},
    {.name = "repetition_penalty",
     .shape = {.scalar = kRowNumber, .range = Above(0)},
     .default_note = "the model's, else 1",
     .doc = "Above 1 makes tokens of the prompt and the answer less likely.",
     .example = "1.1"},
    {.name = "presence_penalty",
     .shape = {.scalar = kRowNumber, .range = Between(-2, 2)},
     .default_note = "0",
     .doc = "Above 0 makes tokens that the answer has less likely.",
     .example = "0.5"},
    {.name = "frequency_penalty",
     .shape = {.scalar = kRowNumber, .range = Between(-2, 2)},
     .default_note = "0",
     .doc = "The same, by how often the answer has them.",
     .example = "0.5"},
    {.name = "stop",
     .shape = kTextOrList,
     .default_note = "none",
     .doc = "Texts that end an answer.",
     .example = "[\"###\"]"},
    {.name = "stop_token_ids",
     .shape = {.items = &kTokenId},
     .default_note = "none",
     .doc = "Tokens that end an answer, beside the model's own.",
     .example = "[2]"},
    {.name = "include_stop_str_in_output",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Keeps the stop text at the answer's end.",
     .example = "true"},
    {.name = "ignore_eos",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Goes on after the model's end of text, up to `max_tokens`.",
     .example = "true"},
    {.name = "n",
     .shape = {.scalar = kInteger, .range = Between(1, 64)},
     .default_value = "1",
     .doc = "Answers per row; above 1 the output column is a list.",
     .example = "3"},
    {.name = "seed",
     .shape = {.scalar = kRowInteger},
     .default_note = "the job's",
     .doc = "Seed of the random draws. Each row has a stream of its own all the same.",
     .example = "7"},
    {.name = "chat_template",
     .shape = kTextValue,
     .default_note = "the model's",
     .doc = "A file with a Jinja chat template, relative to the job file.",
     .example = "chatml.jinja"},
    {.name = "chat_template_kwargs",
     .shape = kAnyMapping,
     .default_value = "{}",
     .doc = "Further values for the chat template.",
     .example = "{enable_thinking: false}"},
    {.name = "continue_final_message",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "The last message is the beginning of the answer.",
     .example = "true"},
    {.name = "add_special_tokens",
     .shape = kBoolValue,
     .default_note = "`true` with `raw_prompt`, else `false`",
     .doc = "Lets the tokenizer add its own tokens, such as a beginning of text.",
     .example = "false"},
    {.name = "parse_special",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Lets text of rows become special tokens. Only for rows that you trust.",
     .example = "true"},
    {.name = "structured_outputs",
     .shape = {.section = &kStructured},
     .default_note = "none",
     .doc = "What the answer must look like.",
     .example = "{choice: [positive, negative]}"},
    {.name = "response_format",
     .shape = {.section = &kResponseFormat},
     .default_note = "none",
     .doc = "The same in OpenAI's form.",
     .example = "{type: json_object}"},
    {.name = "on_overflow",
     .shape = {.scalar = kWord, .words = kOverflows, .section = &kOverflow},
     .default_value = "error",
     .doc = "What happens to a row whose prompt and `max_tokens` exceed the context.",
     .example = "{truncate: [text], side: right}"},
    {.name = "on_length",
     .shape = {.scalar = kWord, .words = kLengths},
     .default_value = "keep",
     .doc = "What happens to an answer that was cut at `max_tokens`.",
     .example = "error"},
    {.name = "reasoning",
     .shape = {.scalar = kWord, .words = kReasonings},
     .default_value = "keep",
     .doc = "`split` moves `<think>` parts into the column `<as>_reasoning`.",
     .example = "split"},
    {.name = "keep_prompt",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Adds the column `<as>_prompt` with the prompt as the model got it.",
     .example = "true"},
};
constexpr SpecSection kGenerate{
    .name = "generate",
    .doc = "Runs a model for each row and puts the answer into a new column.",
    .keys = kGenerateKeys,
    .foreign = kGenerateForeign
};

constexpr SpecKey kStepKeys[] = {
    {.name = "id",
     .shape = kTextValue,
     .default_note = "`as` of a generate, else the kind and a number: `filter1`",
     .doc = "The step's name in errors, seeds and `--set`. Letters, digits, `_` and `-`.",
     .example = "long_enough"},
    {.name = "set",
     .shape = {.values = &kSetColumn},
     .doc = "New or replaced columns.",
     .example = "{title: \"{{ text[:40] }}\", score: {value: \"{{ points }}\", type: double}}"},
    {.name = "filter",
     .shape = {.scalar = kExpression},
     .doc = "Rows for which it is not true are skipped.",
     .example = "\"{{ text|length > 20 }}\""},
    {.name = "generate",
     .shape = {.section = &kGenerate},
     .doc = "Runs a model for each row.",
     .example = "{model: writer, prompt: \"Explain: {{ text }}\", as: answer}"},
    {.name = "check",
     .shape = {.section = &kCheck},
     .doc = "Rows for which it is not true are errors.",
     .example = "{that: \"{{ answer|length > 0 }}\", code: empty_answer}"},
    {.name = "select",
     .shape = kTextList,
     .doc = "The columns to keep, in this order.",
     .example = "[id, answer]"},
    {.name = "drop", .shape = kTextList, .doc = "The columns to leave out.", .example = "[raw]"},
    {.name = "rename", .shape = kTextMap, .doc = "Old names and new ones.", .example = "{txt: text}"
    },
};
constexpr SpecSection kStep{
    .name = "steps[]",
    .doc = "One step: exactly one of these keys, beside `id`.",
    .keys = kStepKeys,
    .foreign = kStepForeign
};
constexpr ValueShape kStepValue{.section = &kStep};

constexpr SpecKey kOutputKeys[] = {
    {.name = "path",
     .shape = kTextValue,
     .doc = "A folder for the parts, or a file such as `out.parquet`, relative to the job file.",
     .example = "out/glosses",
     .required = true,
     .changes_rows = false},
    {.name = "format",
     .shape = {.scalar = kWord, .words = kOutputFormats},
     .default_note = "the file's suffix, else parquet",
     .doc = "The format of the parts.",
     .example = "jsonl"},
    {.name = "rows",
     .shape = {.items = &kRowKind},
     .default_value = "[ok, error]",
     .doc = "The rows to write.",
     .example = "[ok, error, skipped]"},
};
constexpr SpecSection kOutput{
    .name = "output",
    .doc = "Where the rows go. A string alone is the `path`.",
    .keys = kOutputKeys,
    .foreign = kOutputForeign,
    .shorthand = "path"
};

constexpr SpecKey kJobKeys[] = {
    {.name = "name",
     .shape = kTextValue,
     .default_note = "the job file's name",
     .doc = "What reports call the job.",
     .example = "glosses",
     .changes_rows = false},
    {.name = "models",
     .shape = {.values = &kModelValue},
     .default_note = "none",
     .doc = "Models by name, with their settings.",
     .example = "{writer: {path: smollm2-135m-instruct}}"},
    {.name = "input",
     .shape = {.scalar = kText, .items = &kTextValue, .section = &kInput},
     .doc = "Where the rows come from.",
     .example = "{path: glosses.jsonl}",
     .required = true},
    {.name = "steps",
     .shape = {.items = &kStepValue},
     .default_value = "[]",
     .doc = "What is done with each row, in order.",
     .example = "[{filter: \"{{ text|length > 20 }}\"}]"},
    {.name = "output",
     .shape = {.scalar = kText, .section = &kOutput},
     .doc = "Where the rows go. `--output` replaces its path.",
     .example = "{path: out/glosses, format: parquet}",
     .required = true},
    {.name = "max_errors",
     .shape = {.scalar = kErrorLimit},
     .default_note = "no limit",
     .doc = "Failed rows beyond which `run` ends with exit code 2: a count, or a part of the rows "
            "not skipped.",
     .example = "1%",
     .changes_rows = false},
    {.name = "split_rows",
     .shape = {.scalar = kInteger, .range = Between(1, 1e6)},
     .default_value = "4096",
     .doc = "Input rows per output part, at most. No value depends on it.",
     .example = "1000"},
    {.name = "seed",
     .shape = {.scalar = kInteger},
     .default_value = "0",
     .doc = "Seed of every random draw.",
     .example = "42"},
    {.name = "vars",
     .shape = {.values = &kAnyValue},
     .default_note = "none",
     .doc = "Values for `${name}` anywhere in the file; `--var name=value` replaces one.",
     .example = "{lang: German}",
     .changes_rows = false},
};
constexpr SpecSection kJob{
    .name = "job", .doc = "The whole file.", .keys = kJobKeys, .foreign = kJobForeign
};

constexpr std::array<const SpecSection*, 13> kSections{
    &kJob,
    &kModel,
    &kInput,
    &kOutput,
    &kStep,
    &kSetValue,
    &kCheck,
    &kGenerate,
    &kMessage,
    &kPart,
    &kStructured,
    &kOverflow,
    &kResponseFormat
};

}  // namespace

const SpecKey* SpecSection::Find(std::string_view key) const {
  for (const SpecKey& candidate : keys) {
    if (candidate.name == key) return &candidate;
  }
  return nullptr;
}

const SpecSection& JobSection() {
  return kJob;
}

std::span<const SpecSection* const> AllSections() {
  return kSections;
}

std::optional<std::string> RangeProblem(const NumberRange& range, double value) {
  constexpr NumberRange kAny;
  const bool has_min = range.min > kAny.min;
  const bool has_max = range.max < kAny.max;
  const bool low = range.min_open ? !(value > range.min) : !(value >= range.min);
  if (std::isfinite(value) && !low && value <= range.max) return std::nullopt;
  std::string problem = "must be a finite number";
  if (has_min)
    problem = fmt::format("must be {} {}", range.min_open ? "above" : "at least", range.min);
  if (has_max) problem += fmt::format("{} at most {}", has_min ? " and" : "must be", range.max);
  return problem;
}

std::optional<std::string> GenerateNumberProblem(std::string_view key, double value) {
  const SpecKey* known = kGenerate.Find(key);
  if (known == nullptr) return std::nullopt;
  const ScalarType type = known->shape.scalar;
  if ((type == kRowInteger || type == kInteger) && std::trunc(value) != value) {
    return "must be an integer";
  }
  return RangeProblem(known->shape.range, value);
}

}  // namespace millstream
