// SPDX-License-Identifier: Apache-2.0
// Every {{ expression }} and every chat template, on the `minijinja` crate. Rendering is bounded:
// fuel, output size, recursion; no loader, no clock, no random.
//
// Marks. A value that a prompt template prints is marked where a special token could begin or go
// on, and a mark in it is escaped; Tokenizer::Encode and Unmark take them out. Template text itself
// gets none.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millstream {

/// Takes the marks out: the text as a person reads it.
std::string Unmark(std::string_view marked);
/// Marks a whole text as row text (a content of a `messages` column, say; of its roles, those that
/// templates compare with, "user" say, are better left alone). `special_tokens` as
/// Tokenizer::special_tokens() gives them.
std::string MarkAll(std::string_view text, std::string_view special_tokens);

/// One column as an expression sees it: Arrow buffers, not copied. A null is an undefined value.
struct ColumnView {
  enum class Kind : std::uint8_t { kNull, kBool, kInt64, kUint64, kDouble, kText, kJson };
  Kind kind = Kind::kNull;
  const std::uint8_t* validity = nullptr;  // Arrow bitmap, null if no nulls
  std::int64_t offset = 0;                 // first row within the buffers
  const void* values = nullptr;            // bool: bitmap; numbers: array; text and json: bytes
  const std::int32_t* offsets = nullptr;   // text and json: Arrow offsets
};

/// Results of evaluating one expression for many rows, one entry a row.
struct Values {
  enum class Kind : std::uint8_t {
    kUndefined,  // undefined or none: a null
    kBool,       // number 0 or 1
    kInt,        // number, a two's complement int64
    kUint,       // number, above int64's range
    kDouble,     // number, the bits of a double
    kText,       // text
    kJson,       // a list or map; text is its JSON
    kError       // text says what failed, without the run's counts or addresses; see ErrorCode
  };
  std::vector<Kind> kinds;
  std::vector<std::uint64_t> numbers;
  std::vector<std::uint32_t> offsets;  // num_rows + 1, into `text`
  std::string text;

  std::string_view Text(std::size_t row) const {
    return std::string_view(text).substr(offsets[row], offsets[row + 1] - offsets[row]);
  }
  std::int64_t Int(std::size_t row) const { return static_cast<std::int64_t>(numbers[row]); }
  double Double(std::size_t row) const;
  /// Of a kError: undefined_value, template_error or template_limit.
  std::string_view ErrorCode(std::size_t row) const;
};

/// A template or expression of a job file, compiled. Immutable and thread-safe; evaluation makes no
/// shared state.
class Expression {
 public:
  enum class Mode {
    kValue,  // exactly one {{ }} (white space around it trimmed) keeps its value's type; anything
             // else renders text
    kPrompt  // always text, and printed values are marked
  };
  /// Invalid, with line and column within `source`, if it does not parse or uses an unknown filter,
  /// test or function. `special_tokens` (kPrompt): as Tokenizer::special_tokens() gives them; they
  /// tell where marks are needed.
  static Result<std::shared_ptr<const Expression>> Compile(
      std::string_view source, Mode mode, std::string_view special_tokens = {}
  );
  ~Expression();
  Expression(const Expression&) = delete;
  Expression& operator=(const Expression&) = delete;

  /// The names it reads that are not its own: columns, in order of first use. `row` stands for all
  /// of them.
  const std::vector<std::string>& names() const { return names_; }
  /// Whether it reads `row`, through which any column can be reached.
  bool uses_row() const { return uses_row_; }
  /// The columns that it reads as row["X"] with a constant name: they should exist, too.
  const std::vector<std::string>& row_columns() const { return row_columns_; }
  /// Whether the source is exactly one {{ }} expression, which keeps its type.
  bool is_single() const { return is_single_; }

  /// Evaluates rows [0, num_rows). `names` and `columns` are in step. An undefined name without a
  /// default is an error of the row in text (kPrompt or a text template); a single expression that
  /// meets one is null. A row's failure is a Values::kError entry; a Status is for what no row
  /// caused.
  Status Evaluate(
      std::span<const std::string> names,
      std::span<const ColumnView> columns,
      std::int64_t num_rows,
      Values* out
  ) const;

 private:
  Expression() = default;
  void* handle_ = nullptr;
  std::vector<std::string> names_;
  std::vector<std::string> row_columns_;
  bool uses_row_ = false;
  bool is_single_ = false;
};

/// What a chat template is told beside the messages.
struct ChatOptions {
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // the last message is the start of the answer
  std::string kwargs_json = "{}";       // chat_template_kwargs
  std::int64_t now_unix_seconds = 0;    // strftime_now's clock: the plan's
};

/// A model's chat template. Immutable and thread-safe.
class ChatTemplate {
 public:
  static Result<std::shared_ptr<const ChatTemplate>> Compile(
      std::string_view source, std::string_view bos_token, std::string_view eos_token
  );
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  /// Renders messages (a JSON list of {"role", "content"}; contents may hold marks, which pass
  /// through).
  Result<std::string> Render(std::string_view messages_json, const ChatOptions& options) const;
  /// Whether the template prints the date.
  bool uses_now() const { return uses_now_; }
  /// Its source, for --dry-run.
  const std::string& source() const { return source_; }

 private:
  ChatTemplate() = default;
  void* handle_ = nullptr;
  bool uses_now_ = false;
  std::string source_;
};

}  // namespace millstream
