// SPDX-License-Identifier: Apache-2.0
#include "data/text_column.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/builder.h"
#include "data/inference.h"
#include "data/input.h"
#include "data/json_value.h"

namespace millstream {
namespace {

// Integers up to this length have a double that prints the same digits.
constexpr std::size_t kExactDigits = 15;

double NonFinite(std::string_view text) {
  if (text == "NaN" || text == "nan" || text == "-NaN" || text == "-nan") {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double infinity = std::numeric_limits<double>::infinity();
  return text[0] == '-' ? -infinity : infinity;
}

}  // namespace

Result<TextColumn> TextColumn::Make(std::shared_ptr<arrow::Field> field) {
  TextColumn column;
  MS_ASSIGN_OR_RETURN(column.builder_, arrow::MakeBuilder(field->type()));
  switch (field->type()->id()) {
    case arrow::Type::INT64:
      column.conversion_ = Conversion::kInt64;
      break;
    case arrow::Type::DOUBLE:
      column.conversion_ = Conversion::kDouble;
      break;
    case arrow::Type::BOOL:
      column.conversion_ = Conversion::kBool;
      break;
    case arrow::Type::STRING:
      column.conversion_ = IsJsonText(*field) ? Conversion::kJsonText : Conversion::kString;
      break;
    default:
      if (arrow::is_nested(field->type()->id())) {
        column.conversion_ = Conversion::kNested;
      } else if (arrow::is_numeric(field->type()->id()) || arrow::is_decimal(field->type()->id())) {
        column.conversion_ = Conversion::kNumber;
      } else {
        column.conversion_ = Conversion::kQuoted;
      }
  }
  column.field_ = std::move(field);
  return column;
}

Status TextColumn::AppendInt64(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return AppendJson(text, *builder_);
  return static_cast<arrow::Int64Builder&>(*builder_).Append(value);
}

Status TextColumn::AppendDouble(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool plain = text.size() <= kExactDigits || text.find_first_of(".eE") != text.npos;
  if (!plain || error != std::errc() || end != text.data() + text.size()) {
    return AppendJson(text, *builder_);
  }
  return static_cast<arrow::DoubleBuilder&>(*builder_).Append(value);
}

Status TextColumn::Append(const JsonNode& value) {
  const JsonKind kind = value.kind();
  if (kind == JsonKind::kNull) return builder_->AppendNull();
  switch (conversion_) {
    case Conversion::kInt64:
      if (kind == JsonKind::kNumber) return AppendInt64(value.text());
      break;
    case Conversion::kDouble:
      if (kind == JsonKind::kNumber) return AppendDouble(value.text());
      break;
    case Conversion::kBool:
      if (kind == JsonKind::kBool) {
        return static_cast<arrow::BooleanBuilder&>(*builder_).Append(value.boolean());
      }
      break;
    case Conversion::kString:
      if (kind == JsonKind::kString) {
        return static_cast<arrow::StringBuilder&>(*builder_).Append(value.text());
      }
      break;
    case Conversion::kJsonText:
      scratch_.clear();
      WriteJson(value, scratch_);
      return static_cast<arrow::StringBuilder&>(*builder_).Append(scratch_);
    default:
      break;
  }
  return AppendJson(value, *field_->type(), *builder_);
}

Status TextColumn::Append(std::string_view cell, bool quoted) {
  if (conversion_ == Conversion::kString || conversion_ == Conversion::kJsonText) {
    if (cell.empty() && !quoted) return builder_->AppendNull();
    return static_cast<arrow::StringBuilder&>(*builder_).Append(cell);
  }
  if (cell.empty()) return builder_->AppendNull();
  const auto misfit = [&] {
    return Status::Invalid("is a string, expected ", TypeName(*field_->type()));
  };
  switch (conversion_) {
    case Conversion::kBool:
      if (!IsBool(cell)) return misfit();
      return static_cast<arrow::BooleanBuilder&>(*builder_).Append(
          cell[0] == 't' || cell[0] == 'T'
      );
    case Conversion::kDouble:
      if (IsNonFinite(cell)) {
        return static_cast<arrow::DoubleBuilder&>(*builder_).Append(NonFinite(cell));
      }
      if (ClassifyNumber(cell) == NumberKind::kNone) return misfit();
      return AppendDouble(cell);
    case Conversion::kInt64:
      if (ClassifyNumber(cell) == NumberKind::kNone) return misfit();
      return AppendInt64(cell);
    case Conversion::kNumber:
      if (ClassifyNumber(cell) == NumberKind::kNone) return misfit();
      return AppendJson(cell, *builder_);
    case Conversion::kNested:
      return AppendJson(cell, *builder_);
    default:
      scratch_.clear();
      WriteJsonString(cell, scratch_);
      return AppendJson(scratch_, *builder_);
  }
}

}  // namespace millstream
