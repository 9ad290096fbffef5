// SPDX-License-Identifier: Apache-2.0
#include "pipeline/expression_columns.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_primitive.h"
#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/buffer.h"
#include "arrow/builder.h"
#include "arrow/compute/cast.h"
#include "arrow/type_traits.h"
#include "arrow/util/bit_util.h"
#include "data/input.h"
#include "data/json_value.h"
#include "fmt/format.h"

namespace millstream {
namespace {

ColumnView ViewOf(ColumnView::Kind kind, const arrow::Array& array) {
  const arrow::ArrayData& data = *array.data();
  ColumnView view;
  view.kind = kind;
  view.validity = data.GetNullCount() > 0 ? data.buffers[0]->data() : nullptr;
  view.offset = data.offset;
  view.values = data.buffers.size() > 1 && data.buffers[1] ? data.buffers[1]->data() : nullptr;
  if (kind == ColumnView::Kind::kText || kind == ColumnView::Kind::kJson) {
    view.offsets = reinterpret_cast<const std::int32_t*>(view.values);
    view.values = data.buffers[2] ? data.buffers[2]->data() : nullptr;
  }
  return view;
}

// Dates, decimals and the like as their text, nested values as JSON.
Result<std::shared_ptr<arrow::Array>> AsText(const arrow::Array& array, bool is_json) {
  arrow::StringBuilder builder;
  MS_RETURN_NOT_OK(builder.Reserve(array.length()));
  std::string text;
  for (std::int64_t row = 0; row < array.length(); ++row) {
    if (array.IsNull(row)) {
      MS_RETURN_NOT_OK(builder.AppendNull());
      continue;
    }
    text.clear();
    MS_RETURN_NOT_OK(WriteJson(array, row, text));
    std::string_view view = text;
    if (!is_json && view.size() >= 2 && view.front() == '"') view = view.substr(1, view.size() - 2);
    MS_RETURN_NOT_OK(builder.Append(view));
  }
  return builder.Finish();
}

// An array whose buffers an expression can read, and how. `keep` owns what had to be converted.
Result<ColumnView> MakeView(
    const std::shared_ptr<arrow::Array>& array, std::vector<std::shared_ptr<arrow::Array>>& keep
) {
  using arrow::Type;
  using Kind = ColumnView::Kind;
  const auto convert = [&](const std::shared_ptr<arrow::DataType>& type,
                           Kind kind) -> Result<ColumnView> {
    MS_ASSIGN_OR_RETURN(
        std::shared_ptr<arrow::Array> converted, arrow::compute::Cast(*array, type)
    );
    keep.push_back(converted);
    return ViewOf(kind, *converted);
  };
  switch (array->type_id()) {
    case Type::NA:
      return ColumnView{};
    case Type::BOOL:
      return ViewOf(Kind::kBool, *array);
    case Type::INT64:
      return ViewOf(Kind::kInt64, *array);
    case Type::UINT64:
      return ViewOf(Kind::kUint64, *array);
    case Type::DOUBLE:
      return ViewOf(Kind::kDouble, *array);
    case Type::STRING:
      return ViewOf(Kind::kText, *array);
    case Type::INT8:
    case Type::INT16:
    case Type::INT32:
    case Type::UINT8:
    case Type::UINT16:
    case Type::UINT32:
      return convert(arrow::int64(), Kind::kInt64);
    case Type::HALF_FLOAT:
    case Type::FLOAT:
      return convert(arrow::float64(), Kind::kDouble);
    case Type::LARGE_STRING:
    case Type::STRING_VIEW:
      return convert(arrow::utf8(), Kind::kText);
    default: {
      const bool is_json = arrow::is_nested(array->type_id());
      MS_ASSIGN_OR_RETURN(std::shared_ptr<arrow::Array> text, AsText(*array, is_json));
      keep.push_back(text);
      return ViewOf(is_json ? Kind::kJson : Kind::kText, *text);
    }
  }
}

std::string KindName(Values::Kind kind) {
  switch (kind) {
    case Values::Kind::kUndefined:
      return "null";
    case Values::Kind::kBool:
      return "a boolean";
    case Values::Kind::kInt:
    case Values::Kind::kUint:
      return "an integer";
    case Values::Kind::kDouble:
      return "a number";
    case Values::Kind::kText:
      return "text";
    case Values::Kind::kJson:
      return "a list or map";
    case Values::Kind::kError:
      return "an error";
  }
  return "";
}

// Strings need no builder: the values' text already lies as Arrow wants it.
Result<std::shared_ptr<arrow::Array>> TextArray(const Values& values) {
  const std::size_t count = values.kinds.size();
  if (values.text.size() > std::numeric_limits<std::int32_t>::max()) {
    return Status::CapacityError("a batch of text exceeds 2 GiB");
  }
  MS_ASSIGN_OR_RETURN(
      std::shared_ptr<arrow::Buffer> offsets,
      arrow::AllocateBuffer(static_cast<std::int64_t>((count + 1) * sizeof(std::int32_t)))
  );
  std::memcpy(offsets->mutable_data(), values.offsets.data(), (count + 1) * sizeof(std::int32_t));
  MS_ASSIGN_OR_RETURN(
      std::shared_ptr<arrow::Buffer> validity,
      arrow::AllocateEmptyBitmap(static_cast<std::int64_t>(count))
  );
  std::int64_t nulls = 0;
  for (std::size_t row = 0; row < count; ++row) {
    const bool valid =
        values.kinds[row] == Values::Kind::kText || values.kinds[row] == Values::Kind::kJson;
    arrow::bit_util::SetBitTo(validity->mutable_data(), static_cast<std::int64_t>(row), valid);
    nulls += valid ? 0 : 1;
  }
  return std::make_shared<arrow::StringArray>(
      static_cast<std::int64_t>(count),
      std::move(offsets),
      arrow::Buffer::FromString(values.text),
      nulls > 0 ? std::move(validity) : nullptr,
      nulls
  );
}

// The value as JSON text, for builders of any type.
void ValueAsJson(const Values& values, std::size_t row, bool to_text, std::string& out) {
  using Kind = Values::Kind;
  out.clear();
  switch (values.kinds[row]) {
    case Kind::kBool:
      out = values.numbers[row] != 0 ? "true" : "false";
      break;
    case Kind::kInt:
      out = fmt::format("{}", values.Int(row));
      break;
    case Kind::kUint:
      out = fmt::format("{}", values.numbers[row]);
      break;
    case Kind::kDouble:
      out = fmt::format("{}", values.Double(row));
      break;
    case Kind::kJson:
      out = values.Text(row);
      break;
    default: {
      arrow::StringBuilder builder;  // quotes as every other writer of ours does
      if (builder.Append(values.Text(row)).ok()) {
        const auto array = builder.Finish();
        if (array.ok()) (void)WriteJson(**array, 0, out);
      }
      return;
    }
  }
  if (to_text && values.kinds[row] != Kind::kJson) out = '"' + out + '"';
}

}  // namespace

Result<Values> EvaluateOver(const Expression& expression, const arrow::RecordBatch& columns) {
  std::vector<std::string> names;
  std::vector<ColumnView> views;
  std::vector<std::shared_ptr<arrow::Array>> keep;
  const arrow::Schema& schema = *columns.schema();
  const auto add = [&](int index) -> Status {
    names.push_back(schema.field(index)->name());
    MS_ASSIGN_OR_RETURN(ColumnView view, MakeView(columns.column(index), keep));
    if (view.kind == ColumnView::Kind::kText && schema.field(index)->metadata() &&
        IsJsonText(*schema.field(index))) {
      view.kind = ColumnView::Kind::kJson;
    }
    views.push_back(view);
    return Status::OK();
  };
  if (expression.uses_row()) {
    for (int i = 0; i < schema.num_fields(); ++i) MS_RETURN_NOT_OK(add(i));
  } else {
    for (const std::string& name : expression.names()) {
      const int index = schema.GetFieldIndex(name);
      if (index >= 0) MS_RETURN_NOT_OK(add(index));
    }
  }
  Values values;
  MS_RETURN_NOT_OK(expression.Evaluate(names, views, columns.num_rows(), &values));
  return values;
}

std::shared_ptr<arrow::DataType> TypeOfValues(const Values& values) {
  using Kind = Values::Kind;
  bool seen[8] = {};
  for (Kind kind : values.kinds) seen[static_cast<std::size_t>(kind)] = true;
  const auto has = [&](Kind kind) { return seen[static_cast<std::size_t>(kind)]; };
  const int families = int{has(Kind::kBool)} +
                       int{has(Kind::kInt) || has(Kind::kUint) || has(Kind::kDouble)} +
                       int{has(Kind::kText)} + int{has(Kind::kJson)};
  if (families == 0) return nullptr;
  if (families > 1 || has(Kind::kText) || has(Kind::kJson)) return arrow::utf8();
  if (has(Kind::kBool)) return arrow::boolean();
  if (has(Kind::kDouble) || (has(Kind::kUint) && has(Kind::kInt))) return arrow::float64();
  return has(Kind::kUint) ? arrow::uint64() : arrow::int64();
}

Result<std::shared_ptr<arrow::Array>> ValuesToArray(
    const Values& values,
    const arrow::Field& field,
    const std::string& step,
    std::vector<FailedRow>* failed
) {
  using Kind = Values::Kind;
  const std::shared_ptr<arrow::DataType>& type = field.type();
  const bool to_json = IsJsonText(field);
  const bool to_text = type->id() == arrow::Type::STRING && !to_json;
  bool only_text = to_text;
  for (std::size_t row = 0; row < values.kinds.size(); ++row) {
    const Kind kind = values.kinds[row];
    if (kind == Kind::kError) {
      failed->push_back(
          {static_cast<std::int64_t>(row),
           {step, std::string(values.ErrorCode(row)), std::string(values.Text(row))}}
      );
    }
    only_text = only_text && (kind == Kind::kText || kind == Kind::kJson ||
                              kind == Kind::kUndefined || kind == Kind::kError);
  }
  if (only_text) return TextArray(values);

  MS_ASSIGN_OR_RETURN(std::unique_ptr<arrow::ArrayBuilder> builder, arrow::MakeBuilder(type));
  MS_RETURN_NOT_OK(builder->Reserve(static_cast<std::int64_t>(values.kinds.size())));
  std::string json;
  for (std::size_t row = 0; row < values.kinds.size(); ++row) {
    const Kind kind = values.kinds[row];
    if (kind == Kind::kUndefined || kind == Kind::kError) {
      MS_RETURN_NOT_OK(builder->AppendNull());
      continue;
    }
    ValueAsJson(values, row, to_text, json);
    Status fits = to_json || (to_text && kind == Kind::kJson)
                      ? static_cast<arrow::StringBuilder&>(*builder).Append(json)
                      : AppendJson(json, *builder);
    if (!fits.ok()) {
      MS_RETURN_NOT_OK(builder->AppendNull());
      failed->push_back(
          {static_cast<std::int64_t>(row),
           {step,
            "bad_type",
            fmt::format(
                "the value for column '{}' is {}, which does not fit {}",
                field.name(),
                KindName(kind),
                TypeName(*type)
            )}}
      );
    }
  }
  std::stable_sort(failed->begin(), failed->end(), [](const FailedRow& a, const FailedRow& b) {
    return a.row < b.row;
  });
  return builder->Finish();
}

}  // namespace millstream
