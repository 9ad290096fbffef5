// SPDX-License-Identifier: Apache-2.0
// One column under construction from JSON values or CSV cells.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "arrow/array/builder_base.h"
#include "arrow/type.h"
#include "base/status.h"
#include "data/json_document.h"

namespace millstream {

/// One thread. The common types are converted here, all others by AppendJson.
class TextColumn {
 public:
  static Result<TextColumn> Make(std::shared_ptr<arrow::Field> field);

  /// Appends a value. If it does not fit, appends nothing and returns Invalid with why ("is a
  /// string, expected int64").
  Status Append(const JsonNode& value);
  /// Appends a cell: empty and without quotes it is null. Temporal types are ISO 8601, nested ones
  /// JSON text.
  Status Append(std::string_view cell, bool quoted);
  Status AppendNull() { return builder_->AppendNull(); }
  /// Ends the column with as many values as were appended, and begins the next one.
  Result<std::shared_ptr<arrow::Array>> Finish() { return builder_->Finish(); }

  const std::string& name() const { return field_->name(); }
  std::int64_t size() const { return builder_->length(); }

 private:
  enum class Conversion { kInt64, kDouble, kBool, kString, kJsonText, kNumber, kNested, kQuoted };

  Status AppendInt64(std::string_view text);
  Status AppendDouble(std::string_view text);

  std::shared_ptr<arrow::Field> field_;
  std::unique_ptr<arrow::ArrayBuilder> builder_;
  Conversion conversion_ = Conversion::kString;
  std::string scratch_;
};

}  // namespace millstream
