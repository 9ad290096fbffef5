// SPDX-License-Identifier: Apache-2.0
// Cutting a row's text until its prompt fits.
#include <algorithm>

#include "arrow/array/array_binary.h"
#include "arrow/array/builder_binary.h"
#include "arrow/type.h"
#include "pipeline/generate.h"
#include "pipeline/operators.h"

namespace millstream {
namespace {

bool IsContinuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

// `text` without about `cut` bytes at its end or beginning, never within a character.
std::string_view WithoutBytes(std::string_view text, std::size_t cut, bool cut_left) {
  cut = std::min(cut, text.size());
  if (cut_left) {
    while (cut < text.size() && IsContinuation(text[cut])) ++cut;
    return text.substr(cut);
  }
  std::size_t keep = text.size() - cut;
  while (keep > 0 && keep < text.size() && IsContinuation(text[keep])) --keep;
  return text.substr(0, keep);
}

// One row whose `columns` are cut by `cut` bytes in all, the first named column first.
Result<RowBatch> CutRow(
    const RowBatch& row, const std::vector<std::string>& columns, std::size_t cut, bool cut_left
) {
  RowBatch changed = row;
  for (const std::string& name : columns) {
    const auto column = row.columns->GetColumnByName(name);
    if (cut == 0 || column->IsNull(0)) continue;
    const std::string_view text = static_cast<const arrow::StringArray&>(*column).GetView(0);
    const std::string_view kept = WithoutBytes(text, cut, cut_left);
    cut -= std::min(cut, text.size());
    arrow::StringBuilder builder;
    MS_RETURN_NOT_OK(builder.Append(kept));
    MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> array, builder.Finish());
    changed.columns =
        WithColumn(changed.columns, arrow::field(name, arrow::utf8()), std::move(array));
  }
  return changed;
}

}  // namespace

Status GenerateStep::Shorten(
    const RowBatch& batch, std::int64_t row, PreparedRow* prepared, const FitsShorter& fits_shorter
) const {
  RowBatch one;
  one.columns = batch.columns->Slice(row, 1);
  one.rows = {batch.rows[static_cast<std::size_t>(row)]};
  std::size_t total = 0;
  for (const std::string& name : spec_.truncate_columns) {
    const auto column = one.columns->GetColumnByName(name);
    if (!column->IsNull(0)) {
      total += static_cast<const arrow::StringArray&>(*column).GetView(0).size();
    }
  }
  const auto fits = [&](std::size_t cut) -> Result<bool> {
    MS_ASSIGN_OR_RETURN(
        const RowBatch shorter, CutRow(one, spec_.truncate_columns, cut, spec_.truncate_left)
    );
    return fits_shorter(shorter);
  };
  std::size_t least = 0;  // does not fit
  std::size_t most = total;
  MS_ASSIGN_OR_RETURN(const bool possible, fits(most));
  if (!possible) {
    prepared->error = RowError{
        id_,
        "context_overflow",
        "the prompt exceeds the context even with the columns of on_overflow.truncate left empty"
    };
    return Status::OK();
  }
  while (most - least > 1) {
    const std::size_t middle = least + (most - least) / 2;
    MS_ASSIGN_OR_RETURN(const bool good, fits(middle));
    (good ? most : least) = middle;
  }
  MS_RETURN_NOT_OK(fits(most).status());
  prepared->truncated = true;
  return Status::OK();
}

Status GenerateStep::Truncate(
    const RowBatch& batch,
    std::int64_t row,
    std::int64_t room,
    PreparedRow* prepared,
    std::vector<std::int32_t>* tokens
) const {
  return Shorten(batch, row, prepared, [&](const RowBatch& shorter) -> Result<bool> {
    std::vector<std::optional<RowError>> errors(1);
    MS_ASSIGN_OR_RETURN(std::vector<std::string> texts, Render(shorter, &errors));
    if (errors[0]) return false;
    prepared->prompt = std::move(texts[0]);
    MS_ASSIGN_OR_RETURN(*tokens, Encode(prepared->prompt));
    return static_cast<std::int64_t>(tokens->size()) <= room;
  });
}

}  // namespace millstream
