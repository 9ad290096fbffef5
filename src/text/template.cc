// SPDX-License-Identifier: Apache-2.0
#include "text/template.h"

#include <bit>

#include "text/interop.h"

namespace millstream {

std::string Unmark(std::string_view marked) {
  MsBytes out{};
  ms_unmark(ViewOf(marked), &out);
  return Take(out);
}

std::string MarkAll(std::string_view text, std::string_view special_tokens) {
  MsBytes out{};
  ms_mark_all(ViewOf(text), ViewOf(special_tokens), &out);
  return Take(out);
}

double Values::Double(std::size_t row) const {
  return std::bit_cast<double>(numbers[row]);
}

std::string_view Values::ErrorCode(std::size_t row) const {
  switch (numbers[row]) {
    case 0:
      return "undefined_value";
    case 2:
      return "template_limit";
    default:
      return "template_error";
  }
}

Result<std::shared_ptr<const Expression>> Expression::Compile(
    std::string_view source, Mode mode, std::string_view special_tokens
) {
  MsBytes error{};
  void* const handle =
      ms_expression_compile(ViewOf(source), mode == Mode::kPrompt, ViewOf(special_tokens), &error);
  if (handle == nullptr) return Failure(error);
  const std::shared_ptr<Expression> expression(new Expression());
  expression->handle_ = handle;
  expression->names_ = Lines(ms_expression_names(handle));
  expression->row_columns_ = Lines(ms_expression_row_columns(handle));
  expression->uses_row_ = ms_expression_uses_row(handle);
  expression->is_single_ = ms_expression_is_single(handle);
  return expression;
}

Expression::~Expression() {
  ms_expression_free(handle_);
}

Status Expression::Evaluate(
    std::span<const std::string> names,
    std::span<const ColumnView> columns,
    std::int64_t num_rows,
    Values* out
) const {
  if (names.size() != columns.size()) return Status::Invalid("names and columns are not in step");
  std::vector<MsView> name_views;
  std::vector<MsColumn> column_views;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ColumnView& column = columns[i];
    name_views.push_back(ViewOf(names[i]));
    column_views.push_back(
        {static_cast<std::uint8_t>(column.kind),
         column.validity,
         column.offset,
         column.values,
         column.offsets}
    );
  }
  const auto rows = static_cast<std::size_t>(num_rows);
  out->kinds.assign(rows, Values::Kind::kUndefined);
  out->numbers.assign(rows, 0);
  out->offsets.assign(rows + 1, 0);
  static_assert(sizeof(Values::Kind) == sizeof(std::uint8_t));
  MsBytes text{};
  MsBytes error{};
  if (!ms_expression_evaluate(
          handle_,
          name_views.data(),
          column_views.data(),
          column_views.size(),
          num_rows,
          reinterpret_cast<std::uint8_t*>(out->kinds.data()),
          out->numbers.data(),
          out->offsets.data(),
          &text,
          &error
      )) {
    return Failure(error);
  }
  out->text = Take(text);
  return Status::OK();
}

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::Compile(
    std::string_view source, std::string_view bos_token, std::string_view eos_token
) {
  MsBytes error{};
  void* const handle =
      ms_chat_compile(ViewOf(source), ViewOf(bos_token), ViewOf(eos_token), &error);
  if (handle == nullptr) return Failure(error);
  const std::shared_ptr<ChatTemplate> chat(new ChatTemplate());
  chat->handle_ = handle;
  chat->uses_now_ = ms_chat_uses_now(handle);
  chat->source_ = source;
  return chat;
}

ChatTemplate::~ChatTemplate() {
  ms_chat_free(handle_);
}

Result<std::string> ChatTemplate::Render(std::string_view messages_json, const ChatOptions& options)
    const {
  const MsChatOptions chat_options{
      .add_generation_prompt = options.add_generation_prompt,
      .continue_final_message = options.continue_final_message,
      .kwargs_json = ViewOf(options.kwargs_json),
      .now_unix_seconds = options.now_unix_seconds,
  };
  MsBytes out{};
  if (!ms_chat_render(handle_, ViewOf(messages_json), &chat_options, &out)) return Failure(out);
  return Take(out);
}

}  // namespace millstream
