// SPDX-License-Identifier: Apache-2.0
#include "pipeline/spec_keys.h"

#include <array>
#include <cmath>

#include "fmt/format.h"
#include "pipeline/spec.h"
#include "pipeline/spec_foreign.h"
#include "pipeline/spec_shapes.h"

namespace millstream {
namespace {

constexpr std::array<std::string_view, 9> kInputFormats{
    "jsonl", "json", "csv", "tsv", "text", "parquet", "arrow", "arrows", "openai-batch"
};
constexpr std::array<std::string_view, 5> kOutputFormats{
    "parquet", "jsonl", "csv", "arrow", "openai-batch"
};
constexpr std::array<std::string_view, 3> kRowKinds{"ok", "error", "skipped"};
constexpr std::array<std::string_view, 4> kComputes{"auto", "f32", "bf16", "int8"};
constexpr std::array<std::string_view, 5> kIsas{
    "auto", "reference", "avx2", "avx512", "avx512_bf16"
};
constexpr std::array<std::string_view, 2> kReproducible{"strict", "relaxed"};
constexpr std::array<std::string_view, 2> kEngines{"native", "openai"};
constexpr std::array<std::string_view, 5> kDialects{
    "auto", "openai", "vllm", "sglang", "llama-server"
};
constexpr std::array<std::string_view, 8> kStepKinds{
    "set", "filter", "generate", "score", "check", "select", "drop", "rename"
};
constexpr ValueShape kRowKind{.scalar = kWord, .words = kRowKinds};

constexpr SpecKey kEnvironmentKeys[] = {
    {.name = "env",
     .shape = kTextValue,
     .doc = "The variable's name.",
     .example = "OPENAI_API_KEY",
     .required = true},
};
constexpr SpecSection kEnvironment{
    .name = "models.NAME.api_key, models.NAME.headers.NAME",
    .doc = "A secret, by the name of the environment variable that holds it.",
    .keys = kEnvironmentKeys
};

constexpr SpecKey kPriceKeys[] = {
    {.name = "input",
     .shape = {.scalar = kNumber, .range = Between(0, 1e9)},
     .default_value = "0",
     .doc = "Of a million tokens of prompts.",
     .example = "0.15"},
    {.name = "output",
     .shape = {.scalar = kNumber, .range = Between(0, 1e9)},
     .default_value = "0",
     .doc = "Of a million tokens of answers.",
     .example = "0.6"},
};
constexpr SpecSection kPrice{
    .name = "models.NAME.price",
    .doc =
        "What a server's tokens cost, in any currency: for the cost in summaries and `--dry-run`.",
    .keys = kPriceKeys
};

constexpr ValueShape kHeaderValue{.scalar = kText, .section = &kEnvironment};

constexpr SpecKey kModelKeys[] = {
    {.name = "path",
     .shape = kTextValue,
     .default_note = "none; the native engine needs it",
     .doc = "A file, a folder, the name of an installed model package, or a Hugging Face id.",
     .example = "smollm2-135m-instruct"},
    {.name = "engine",
     .shape =
         {.scalar = kWord,
          .words = kEngines,
          .words_note = "other engines are not available in this version"},
     .default_value = "native",
     .doc = "What runs the model: `native` is our own engine, `openai` any server with OpenAI's "
            "API.",
     .example = "openai"},
    {.name = "base_url",
     .shape = kTextOrList,
     .default_note = "none; `engine: openai` needs it or `launch`",
     .doc = "The address of the server, mostly with /v1 at its end; several share the load.",
     .example = "http://gpu-1:8000/v1",
     .changes_rows = false},
    {.name = "launch",
     .shape = kTextValue,
     .default_note = "none",
     .doc = "In place of `base_url`: the command of a server that the job starts, in the job "
            "file's folder and without a shell, and ends. {port} stands for its port.",
     .example = "llama-server -m model.gguf --port {port}",
     .changes_rows = false},
    {.name = "model",
     .shape = kTextValue,
     .default_note = "none; `base_url` needs it; with `launch` any",
     .doc = "The name by which the server knows the model.",
     .example = "Qwen/Qwen3-8B"},
    {.name = "served_model_name",
     .shape = kTextOrList,
     .default_note = "none",
     .doc = "Further names by which the bodies of `generate: {request: ...}` may call the model.",
     .example = "[gpt-4o-mini]"},
    {.name = "dialect",
     .shape = {.scalar = kWord, .words = kDialects},
     .default_value = "auto",
     .doc = "What kind of server it is: which settings it takes, and under which names. `auto` is "
            "what it says itself.",
     .example = "vllm"},
    {.name = "api_key",
     .shape = {.section = &kEnvironment},
     .default_note = "none",
     .doc = "The key that the server wants, as a variable of the environment.",
     .example = "{env: OPENAI_API_KEY}",
     .changes_rows = false,
     .is_secret = true},
    {.name = "headers",
     .shape = {.values = &kHeaderValue},
     .default_note = "none",
     .doc = "HTTP headers of each request. Secrets as variables of the environment.",
     .example = "{x-team: search, x-token: {env: GATEWAY_TOKEN}}",
     .changes_rows = false},
    {.name = "ca_file",
     .shape = kTextValue,
     .default_note = "the system's certificates",
     .doc = "A file of certificates (PEM) to trust, for servers with a private one.",
     .example = "company-ca.pem",
     .changes_rows = false},
    {.name = "extra_body",
     .shape = kAnyMapping,
     .default_value = "{}",
     .doc = "Further keys of each request's body, sent as they are.",
     .example = "{service_tier: flex}"},
    {.name = "tokenizer",
     .shape = kTextValue,
     .default_note = "the server's own, where it counts tokens",
     .doc = "The tokenizer and chat template of the server's model: a folder, a GGUF file or a "
            "Hugging Face id, weights not needed. For cuts to the context and for estimates.",
     .example = "Qwen/Qwen3-8B"},
    {.name = "price",
     .shape = {.section = &kPrice},
     .default_note = "none",
     .doc = "What a million tokens cost.",
     .example = "{input: 0.15, output: 0.6}",
     .changes_rows = false},
    {.name = "max_in_flight",
     .shape = {.scalar = kInteger, .range = Between(1, 100000)},
     .default_note = "as many as get more done",
     .doc = "Requests at a time, of all servers together.",
     .example = "256",
     .changes_rows = false},
    {.name = "requests_per_minute",
     .shape = {.scalar = kInteger, .range = Between(1, 1e9)},
     .default_note = "as many as the server takes",
     .doc = "Requests that are sent in a minute, at most, to all servers together.",
     .example = "500",
     .changes_rows = false},
    {.name = "tokens_per_minute",
     .shape = {.scalar = kInteger, .range = Between(1, 1e12)},
     .default_note = "as many as the server takes",
     .doc = "Tokens of prompts and answers in a minute, at most, of all servers together.",
     .example = "200000",
     .changes_rows = false},
    {.name = "timeout",
     .shape = {.scalar = kNumber, .range = Between(0.01, 86400)},
     .default_value = "600",
     .doc = "Seconds that a request may take.",
     .example = "120",
     .changes_rows = false},
    {.name = "row_deadline",
     .shape = {.scalar = kNumber, .range = Between(0.01, 604800)},
     .default_value = "1800",
     .doc = "Seconds after which a row fails that is not answered while others are.",
     .example = "600",
     .changes_rows = false},
    {.name = "context",
     .shape = {.scalar = kInteger, .range = Between(1, kMaxInt32)},
     .default_note = "the model's; of a server, what it says",
     .doc = "Tokens that prompt and answer may have together.",
     .example = "4096"},
    {.name = "memory",
     .shape = {.scalar = kSize},
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
     .doc = "Arithmetic. `int8` takes quantised weights as they are and rounds what they are "
            "multiplied by to 8 bits; `auto` is that for quantised weights, and for others `bf16` "
            "where the machine multiplies it, else `f32`.",
     .example = "f32"},
    {.name = "isolate",
     .shape = kBoolValue,
     .default_value = "false",
     .doc = "Run the engine in a process of its own: a row that crashes it fails alone, at once. "
            "Without, it ends the run, and the next one finds it. The answers do not depend on it.",
     .example = "true",
     .changes_rows = false},
    {.name = "hang_seconds",
     .shape = {.scalar = kInteger, .range = Between(1, 86400)},
     .default_value = "60",
     .doc = "Without a token for so long, or for twenty steps if those take longer, the engine "
            "hangs: it is ended, and the row that does it fails.",
     .example = "300",
     .changes_rows = false},
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
     .doc = "The files' format. `text` makes each line a row with the one column `text`. "
            "`openai-batch` is OpenAI's batch input: the columns `custom_id`, `method`, `url` and "
            "`body`, which each line must have.",
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
     .shape = kTextValue,
     .default_note = "names the expression",
     .doc = "The error's message, the same for every row.",
     .example = "\"the model gave no answer\""},
};
constexpr SpecSection kCheck{
    .name = "check",
    .doc = "Rows for which `that` is not true are errors.",
    .keys = kCheckKeys,
    .foreign = kCheckForeign
};

constexpr SpecKey kStepKeys[] = {
    {.name = "id",
     .shape = kTextValue,
     .default_note = "`as` of a generate or score, else the kind and a number: `filter1`",
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
    {.name = "score",
     .shape = {.section = &kScore},
     .doc = "Tells how likely a model finds a text.",
     .example = "{model: writer, text: \"{{ text }}\", as: quality}"},
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
    .doc = "One step.",
    .keys = kStepKeys,
    .foreign = kStepForeign,
    .one_of = kStepKinds,
    .one_of_note = "; begin the next step with `- `"
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
     .doc = "The format of the parts. `openai-batch` writes OpenAI's batch output lines from the "
            "columns `custom_id` and `response`, and no other.",
     .example = "jsonl"},
    {.name = "rows",
     .shape = {.items = &kRowKind},
     .default_value = "[ok, error]",
     .doc = "The rows to write.",
     .example = "[ok, error, skipped]"},
    {.name = "errors",
     .shape = kTextValue,
     .default_note = "none",
     .doc = "A file for the failed rows, which then stand there alone. For an output that is one "
            "file, and of its format.",
     .example = "errors.jsonl"},
};
constexpr SpecSection kOutput{
    .name = "output",
    .doc = "Where the rows go. A string alone is the `path`.",
    .keys = kOutputKeys,
    .foreign = kOutputForeign,
    .shorthand = "path"
};

constexpr SpecKey kBreakerKeys[] = {
    {.name = "first",
     .shape = {.scalar = kInteger, .range = Between(1, 1e9)},
     .default_value = "50",
     .doc = "Stop if so many rows came first from the models, and all failed with one code.",
     .example = "20",
     .changes_rows = false},
    {.name = "window",
     .shape = {.scalar = kInteger, .range = Between(1, 1e9)},
     .default_value = "1000",
     .doc = "The last rows from the models of which `share` is taken.",
     .example = "500",
     .changes_rows = false},
    {.name = "share",
     .shape = {.scalar = kErrorLimit},
     .default_note = "the larger of 20% and `max_errors`, and 100 rows",
     .doc = "Stop if more of the window failed: a count, or a percentage.",
     .example = "50%",
     .changes_rows = false},
};
constexpr SpecSection kBreaker{
    .name = "breaker",
    .doc =
        "When a run stops early, with exit code 3, because what fails is the model, not the rows: "
        "failures inside a model's step count, never those of data. The rows of the open window "
        "are not written; a rerun tries them again.",
    .keys = kBreakerKeys
};
constexpr std::string_view kBreakerWords[] = {"on", "off"};

constexpr std::string_view kMarkets[] = {"head", "on-demand", "spot"};
constexpr SpecKey kResourcesKeys[] = {
    {.name = "cpus",
     .shape = {.scalar = kInteger, .range = Between(1, 4096)},
     .default_note = "all of its machine",
     .doc = "CPUs that a worker reserves and computes with.",
     .example = "16",
     .changes_rows = false},
    {.name = "gpus",
     .shape = {.scalar = kNumber, .range = Between(0, 4096)},
     .default_value = "0",
     .doc = "GPUs that a worker reserves, for a server that it launches.",
     .example = "1",
     .changes_rows = false},
    {.name = "memory",
     .shape = {.scalar = kSize},
     .default_note = "1GiB, the models' files and their `memory`",
     .doc = "Memory that a worker reserves.",
     .example = "32GiB",
     .changes_rows = false},
    {.name = "min_workers",
     .shape = {.scalar = kInteger, .range = Between(1, 1e6)},
     .default_value = "1",
     .doc = "Workers that a cluster which grows on demand is asked for.",
     .example = "4",
     .changes_rows = false},
    {.name = "max_workers",
     .shape = {.scalar = kInteger, .range = Between(1, 1e6)},
     .default_note = "one a machine; one if all models are on servers that are there",
     .doc = "Workers at a time, at most.",
     .example = "16",
     .changes_rows = false},
    {.name = "labels",
     .shape = {.values = &kTextValue},
     .default_value = "{}",
     .doc = "Labels that a worker's machine must have.",
     .example = "{ray.io/accelerator-type: L4}",
     .changes_rows = false},
    {.name = "coordinator",
     .shape = {.scalar = kWord, .words = kMarkets},
     .default_value = "head",
     .doc = "The machine for the job's coordinator: the cluster's head, or one whose label "
            "`ray.io/market-type` says so. If it dies, the coordinator begins again on another.",
     .example = "on-demand",
     .changes_rows = false},
};
constexpr SpecSection kResources{
    .name = "resources",
    .doc = "What workers get of a cluster (`--ray`). No value depends on it.",
    .keys = kResourcesKeys,
    .foreign = kResourcesForeign
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
    {.name = "breaker",
     .shape = {.scalar = kWord, .words = kBreakerWords, .section = &kBreaker},
     .default_value = "on",
     .doc = "Whether a run stops early when its models fail row after row.",
     .example = "{first: 20}",
     .changes_rows = false},
    {.name = "resources",
     .shape = {.section = &kResources},
     .default_note = "each machine of the cluster as a whole",
     .doc = "What workers get of a cluster.",
     .example = "{cpus: 16, max_workers: 8}",
     .changes_rows = false},
    {.name = "split_rows",
     .shape = {.scalar = kInteger, .range = Between(1, 1e6)},
     .default_note = "4096; 16384 for a job without a model",
     .doc = "Input rows per output part, at most. No value depends on it.",
     .example = "1000"},
    {.name = "seed",
     .shape = {.scalar = kInteger, .range = Between(-kLargestSeed, kLargestSeed)},
     .default_value = "0",
     .doc = "Seed of every random draw.",
     .example = "42"},
    {.name = "isa",
     .shape = {.scalar = kWord, .words = kIsas},
     .default_value = "auto",
     .doc =
         "Instruction set of native models, of which `auto` is the machine's fastest. Answers are "
         "the same within one, and may differ between them: one that all machines have makes "
         "workers on different ones agree (`compute: auto` is then what it is for that set).",
     .example = "avx2",
     .changes_rows = false},
    {.name = "reproducible",
     .shape = {.scalar = kWord, .words = kReproducible},
     .default_value = "strict",
     .doc =
         "Whether a machine that computes native models otherwise than those before it is "
         "refused (`strict`), or may do its part of the rows (`relaxed`): which machine answered "
         "a row is then chance.",
     .example = "relaxed",
     .changes_rows = false},
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

constexpr std::array<const SpecSection*, 19> kSections{
    &kJob,
    &kModel,
    &kEnvironment,
    &kPrice,
    &kInput,
    &kOutput,
    &kBreaker,
    &kResources,
    &kStep,
    &kSetValue,
    &kCheck,
    &kGenerate,
    &kScore,
    &kMessage,
    &kPart,
    &kStructured,
    &kResponseFormat,
    &kJsonSchema,
    &kOverflow
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

std::string DescribeRange(const NumberRange& range) {
  std::string words;
  if (range.min > -kMostTokens) {
    words = fmt::format("{} {}", range.min_open ? "above" : "at least", range.min);
  }
  if (range.max < kMostTokens) {
    words += fmt::format("{}at most {}", words.empty() ? "" : " and ", range.max);
  }
  return words;
}

std::optional<std::string> RangeProblem(const NumberRange& range, double value) {
  if (!std::isfinite(value)) return "must be a finite number";
  if (value > range.max) return fmt::format("must be at most {}", range.max);
  if (range.min_open && value <= range.min) return fmt::format("must be above {}", range.min);
  if (value < range.min) return fmt::format("must be at least {}", range.min);
  return std::nullopt;
}

}  // namespace millstream
