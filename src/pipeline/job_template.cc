// SPDX-License-Identifier: Apache-2.0
#include "pipeline/job_template.h"

#include <cstddef>

namespace millstream {
namespace {

constexpr std::string_view kTemplate =
    R"(# A Millstream job: what is read, what is done with each row, what is written.
# Check it:  millstream run THIS_FILE --dry-run
# Try it:    millstream run THIS_FILE --limit 5
# Run it:    millstream run THIS_FILE
# Every key: docs/job-file.md

models:
  # A GGUF file, a folder, the name of an installed model package, or a Hugging Face id. See `millstream models`.
  labeller: {path: smollm2-135m-instruct}

# A file, a list, a glob or a folder. The format follows from the suffix: .jsonl .json .csv .tsv .txt .parquet .arrow,
# text ones also with .gz or .zst. Relative paths start at this file's folder.
input: {path: @INPUT@}

steps:
  # Rows that do not pass are skipped.
  - filter: "{{ @COLUMN@|default('')|length > 0 }}"

  - generate:
      model: labeller
      # A Jinja template over the row's columns. The quotes are needed: {{ is something else in YAML.
      prompt: "Is the sentiment of this text positive or negative?\n\n{{ @COLUMN@ }}"
      as: sentiment                # the new column; sentiment_meta beside it counts the tokens
      structured_outputs:
        choice: [positive, negative]
      temperature: 0               # always the likeliest token
      on_overflow: {truncate: [@NAME@]}  # a text too long for the model is cut, and sentiment_meta says so

  # Rows that do not pass are errors, with this code.
  - check: {that: "{{ sentiment|length > 0 }}", code: no_answer}

# A folder of parts, or one file such as labels.parquet.
output: {path: @OUTPUT@, format: jsonl}  # or parquet, csv, arrow

max_errors: 1%  # more failed rows than that, and `run` ends with exit code 2; everything is written all the same
)";

bool IsIdentifier(std::string_view name) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
  return !name.empty() && kLetters.find(name[0]) != std::string_view::npos &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"
         ) == std::string_view::npos;
}

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

/// `text` as it stands within YAML's double quotes; ${ is no var of the job file.
std::string Escaped(std::string text) {
  ReplaceAll(text, "\\", "\\\\");
  ReplaceAll(text, "\"", "\\\"");
  ReplaceAll(text, "\n", "\\n");
  ReplaceAll(text, "${", "$${");
  return text;
}

std::string Quoted(std::string_view text) {
  return '"' + Escaped(std::string(text)) + '"';
}

/// The column in a Jinja expression within YAML's double quotes.
std::string ColumnExpression(std::string_view column) {
  if (IsIdentifier(column)) return std::string(column);
  std::string name(column);
  ReplaceAll(name, "\\", "\\\\");
  ReplaceAll(name, "'", "\\'");
  return Escaped("row['" + name + "']");
}

std::string OutputPath(std::string_view input) {
  const std::size_t slash = input.find_last_of('/');
  std::string_view stem = slash == std::string_view::npos ? input : input.substr(slash + 1);
  stem = stem.substr(0, stem.find('.'));
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-";
  const bool is_plain = !stem.empty() && stem.find_first_not_of(kPlain) == std::string_view::npos;
  return is_plain ? "out/" + std::string(stem) + "-labels" : "out/labels";
}

}  // namespace

std::string JobTemplate(std::string_view input, std::string_view column) {
  std::string text(kTemplate);
  ReplaceAll(text, "@OUTPUT@", OutputPath(input));
  ReplaceAll(text, "@COLUMN@", ColumnExpression(column));
  ReplaceAll(text, "@NAME@", Quoted(column));
  ReplaceAll(text, "@INPUT@", Quoted(input));
  return text;
}

}  // namespace millstream
