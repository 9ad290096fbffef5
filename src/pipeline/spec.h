// SPDX-License-Identifier: Apache-2.0
// The job file as data: checked, defaults not yet resolved against a model or an input.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nlohmann/json.hpp"

namespace millstream {

/// Where in the job file something stands, for messages about it.
struct SpecPlace {
  int line = 0;      // from 1; 0: from the command line or a default
  std::string path;  // "steps[2].generate.max_tokens"
};

/// One value of a per-row number key: a constant, or an expression evaluated for each row.
struct NumberSetting {
  std::variant<double, std::string> value;
  SpecPlace place;
};

/// An HTTP header of each request to a server.
struct HeaderSpec {
  std::string name;
  std::string value;     // as given, or
  std::string variable;  // of the environment, which holds a secret
};

/// What a server takes for a million tokens.
struct PriceSpec {
  double input = 0, output = 0;
};

struct ModelSpec {
  bool is_native = true;                // engine: native; else openai
  std::string path;                     // native: name, path or Hugging Face id
  std::optional<std::int64_t> context;  // tokens
  std::optional<std::uint64_t> memory_bytes;
  std::optional<int> threads;
  std::string compute = "auto";  // auto, f32, bf16
  bool isolate = false;
  std::int64_t hang_seconds = 60;
  std::vector<std::string> served_names;  // further names that request bodies may use
  // Of servers:
  std::vector<std::string> base_urls;
  std::vector<std::string> launch;  // in place of an address: the words of a command, with {port}
  std::string served_model;         // the name that they know it by
  std::string dialect;              // "auto": as they say
  std::string ca_file;              // absolute
  std::string tokenizer;            // of the model: path or Hugging Face id; empty: the server's
  std::string api_key_variable;     // of the environment; empty: no key
  std::vector<HeaderSpec> headers;
  nlohmann::ordered_json extra_body = nlohmann::ordered_json::object();
  std::int64_t max_in_flight = 0, requests_per_minute = 0, tokens_per_minute = 0;  // 0: no limit
  std::optional<PriceSpec> price;
  double timeout_seconds = 600, row_deadline_seconds = 1800;
  SpecPlace place;
};

struct InputSpec {
  std::vector<std::string> paths;
  std::optional<std::string> format;
  std::vector<std::string> columns;
  std::vector<std::pair<std::string, std::string>> schema;  // column, type name
  bool keep_job_columns =
      false;  // read another job's output as it is, failed rows and `_` columns too
  SpecPlace place;
};

struct SetColumn {
  std::string column;
  std::string
      value;  // a template; a plain number or boolean becomes "{{ 5 }}", which keeps its type
  std::optional<std::string> type;
  SpecPlace place;
};
struct SetSpec {
  std::vector<SetColumn> columns;
};
struct FilterSpec {
  std::string expression;
  SpecPlace place;
};
struct CheckSpec {
  std::string that;
  std::string code = "check_failed";
  std::optional<std::string> message;
  SpecPlace place;  // of `that`
};
struct SelectSpec {
  std::vector<std::string> columns;
  std::vector<SpecPlace> places;  // in step with columns
};
struct DropSpec {
  std::vector<std::string> columns;
  std::vector<SpecPlace> places;  // in step with columns
};
struct RenameSpec {
  std::vector<std::pair<std::string, std::string>> columns;  // old, new
  std::vector<SpecPlace> places;                             // in step with columns
};

/// One entry of `messages`.
struct MessageSpec {
  std::string role;                   // a template
  std::vector<std::string> contents;  // templates; the parts of a list of text parts, or one
  SpecPlace place;
};

struct StructuredSpec {
  enum class Kind { kJson, kChoice, kRegex, kGrammar };
  Kind kind = Kind::kJson;
  nlohmann::ordered_json schema;             // kJson
  std::vector<std::string> choices;          // kChoice, as written
  std::optional<std::string> choice_column;  // kChoice from this {{ expression }} per row
  std::string text;                          // kRegex, kGrammar
  SpecPlace place;
};

/// Seeds lie between minus this and this: each is a double, exactly.
inline constexpr double kLargestSeed = 9007199254740992;

/// A step that runs a model: `generate`, or `score`, which has a few of these.
struct GenerateSpec {
  bool is_score = false;  // of the text that is raw_prompt
  bool per_token = false;
  std::string model;  // key of `models:`, or a name, path or id
  // Exactly one of prompt, messages, messages_column, raw_prompt, request_column.
  std::optional<std::string> prompt;
  std::optional<std::string> system;  // with prompt
  std::vector<MessageSpec> messages;
  std::optional<std::string> messages_column;
  std::optional<std::string> raw_prompt;
  std::optional<std::string> request_column;
  bool request_is_line = false;                  // of a batch file, which must have all its columns
  std::string as;                                // output column
  std::map<std::string, NumberSetting> numbers;  // max_tokens, temperature, ... as given
  std::vector<std::string> stop;
  std::vector<std::int64_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool ignore_runaway = false;  // runaway: ignore
  std::int64_t n = 1;
  nlohmann::ordered_json chat_template_kwargs = nlohmann::ordered_json::object();
  std::optional<std::string> chat_template;  // the file's text
  bool continue_final_message = false;
  std::optional<bool> add_special_tokens;
  bool parse_special = false;
  std::optional<StructuredSpec> structured;
  bool overflow_error = true;                 // on_overflow: error
  std::vector<std::string> truncate_columns;  // on_overflow: {truncate: [...]}
  bool truncate_left = false;                 // side: left cuts the beginning
  bool length_error = false;                  // on_length: error
  bool split_reasoning = false;
  bool keep_prompt = false;
  SpecPlace place;
  std::map<std::string, SpecPlace> places;  // of each key that is given, by its name
};

struct StepSpec {
  std::string id;
  std::variant<SetSpec, FilterSpec, GenerateSpec, CheckSpec, SelectSpec, DropSpec, RenameSpec> body;
  SpecPlace place;
};

struct OutputSpec {
  std::string path;  // as written; --output's is absolute
  std::string format = "parquet";
  bool is_file = false;  // the path ends in a file suffix: one file is published at the end
  bool keep_skipped = false, keep_errors = true, keep_ok = true;  // rows:
  std::string errors_path;  // of the failed rows' own file, as written; empty: they have none
  SpecPlace place;
};

/// `max_errors`: a count, or a percentage of the rows that were not skipped.
struct ErrorLimit {
  double value = 0;
  bool is_percent = false;
};

/// When a run stops early because a model fails row after row.
struct BreakerSpec {
  bool is_on = true;
  std::int64_t first = 50, window = 1000;
  std::optional<ErrorLimit> share;
};

/// What workers get of a cluster.
struct ResourcesSpec {
  std::optional<std::int64_t> cpus;  // of a worker; none: all of its machine
  double gpus = 0;
  std::optional<std::uint64_t> memory_bytes;
  std::int64_t min_workers = 1;
  std::optional<std::int64_t> max_workers;
  std::map<std::string, std::string> labels;  // of a worker's machine
  std::string coordinator = "head";           // head, on-demand, spot
};

struct JobSpec {
  std::string file;    // the job file, absolute
  std::string folder;  // its folder: relative paths start here
  std::string text;    // what stands in it
  std::string name;
  std::map<std::string, ModelSpec> models;
  InputSpec input;
  std::vector<StepSpec> steps;
  OutputSpec output;
  std::optional<ErrorLimit> max_errors;  // none: no limit, any number of failed rows is complete
  BreakerSpec breaker;
  ResourcesSpec resources;
  std::int64_t split_rows = 0;  // as given, else by whether a step has a model
  std::int64_t seed = 0;
  std::string isa = "auto";     // of native models: auto, or an instruction set's name
  bool is_reproducible = true;  // they are to compute alike on all machines of the job
  /// The whole spec after vars and --set, in one form: shorthands as mappings, files that it names
  /// (schemas, chat templates) by their content, defaults and what changes no row (name,
  /// output.path, max_errors, a model's threads, memory, isolate and hang_seconds) left out. What a
  /// fingerprint and a difference are made of. Each value's line is in `lines` by its path
  /// ("steps[2].generate.max_tokens"), 0 if it came from the command line.
  nlohmann::ordered_json canonical;
  std::map<std::string, int> lines;
};

}  // namespace millstream
