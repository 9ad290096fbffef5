// SPDX-License-Identifier: Apache-2.0
#include "data/plain_array.h"

#include <algorithm>
#include <string>
#include <utility>

#include "arrow/array/array_nested.h"
#include "arrow/array/builder_binary.h"
#include "arrow/array/concatenate.h"
#include "arrow/array/util.h"
#include "arrow/compute/api_vector.h"
#include "arrow/compute/cast.h"
#include "arrow/compute/initialize.h"
#include "arrow/extension_type.h"
#include "arrow/type.h"
#include "arrow/util/key_value_metadata.h"
#include "data/input.h"
#include "data/json_value.h"

namespace millstream {
namespace {

using arrow::Type;

void InitializeCompute() {
  static const arrow::Status status = arrow::compute::Initialize();
  (void)status;
}

Result<std::shared_ptr<arrow::DataType>> PlainType(const arrow::DataType& type);

Result<arrow::FieldVector> PlainFields(const arrow::DataType& type) {
  arrow::FieldVector fields;
  for (const auto& field : type.fields()) {
    MS_ASSIGN_OR_RETURN(auto plain, PlainField(*field));
    fields.push_back(std::move(plain));
  }
  return fields;
}

Result<std::shared_ptr<arrow::DataType>> PlainNested(const arrow::DataType& type) {
  MS_ASSIGN_OR_RETURN(arrow::FieldVector fields, PlainFields(type));
  switch (type.id()) {
    case Type::STRUCT:
      return arrow::struct_(fields);
    case Type::LIST:
    case Type::LIST_VIEW:
      return arrow::list(fields[0]);
    case Type::LARGE_LIST:
    case Type::LARGE_LIST_VIEW:
      return arrow::large_list(fields[0]);
    case Type::FIXED_SIZE_LIST:
      return arrow::fixed_size_list(
          fields[0], static_cast<const arrow::FixedSizeListType&>(type).list_size()
      );
    default:
      return arrow::MapType::Make(
          fields[0], static_cast<const arrow::MapType&>(type).keys_sorted()
      );
  }
}

Result<std::shared_ptr<arrow::DataType>> PlainType(const arrow::DataType& type) {
  switch (type.id()) {
    case Type::EXTENSION:
      return PlainType(*static_cast<const arrow::ExtensionType&>(type).storage_type());
    case Type::DICTIONARY:
      return PlainType(*static_cast<const arrow::DictionaryType&>(type).value_type());
    case Type::RUN_END_ENCODED:
      return PlainType(*static_cast<const arrow::RunEndEncodedType&>(type).value_type());
    case Type::STRING_VIEW:
      return arrow::utf8();
    case Type::BINARY_VIEW:
      return arrow::binary();
    case Type::SPARSE_UNION:
    case Type::DENSE_UNION:
      return Status::NotImplemented("has type ", type.name(), ", which cannot be read");
    default:
      if (type.num_fields() > 0 || type.id() == Type::STRUCT) return PlainNested(type);
      return type.GetSharedPtr();
  }
}

Result<std::shared_ptr<arrow::Array>> Cast(
    const std::shared_ptr<arrow::Array>& array, const std::shared_ptr<arrow::DataType>& type
) {
  InitializeCompute();
  return arrow::compute::Cast(*array, type, arrow::compute::CastOptions::Safe());
}

int BitWidth(const arrow::DataType& type) {
  return static_cast<const arrow::FixedWidthType&>(type).bit_width();
}

std::shared_ptr<arrow::DataType> WiderNumber(
    const std::shared_ptr<arrow::DataType>& a, const std::shared_ptr<arrow::DataType>& b
) {
  if (arrow::is_floating(a->id()) && arrow::is_floating(b->id())) {
    return BitWidth(*a) >= BitWidth(*b) ? a : b;
  }
  if (arrow::is_floating(a->id()) || arrow::is_floating(b->id())) return arrow::float64();
  const bool a_signed = arrow::is_signed_integer(a->id());
  if (a_signed == arrow::is_signed_integer(b->id())) return BitWidth(*a) >= BitWidth(*b) ? a : b;
  const auto& with_sign = a_signed ? a : b;
  const auto& without = a_signed ? b : a;
  if (BitWidth(*with_sign) > BitWidth(*without)) return with_sign;
  if (BitWidth(*without) == 8) return arrow::int16();
  if (BitWidth(*without) == 16) return arrow::int32();
  return BitWidth(*without) == 32 ? arrow::int64() : nullptr;
}

// The wider of two nested types with fields of the same names.
std::shared_ptr<arrow::DataType> WiderNested(const arrow::DataType& a, const arrow::DataType& b) {
  if (a.num_fields() != b.num_fields()) return nullptr;
  arrow::FieldVector fields;
  for (int i = 0; i < a.num_fields(); ++i) {
    const bool same_name = a.id() != Type::STRUCT || a.field(i)->name() == b.field(i)->name();
    auto type = same_name ? WiderType(a.field(i)->type(), b.field(i)->type()) : nullptr;
    if (type == nullptr) return nullptr;
    fields.push_back(
        a.field(i)->WithType(type)->WithNullable(a.field(i)->nullable() || b.field(i)->nullable())
    );
  }
  if (a.id() == Type::STRUCT) return arrow::struct_(fields);
  if (a.id() == Type::LIST) return arrow::list(fields[0]);
  return a.id() == Type::LARGE_LIST ? arrow::large_list(fields[0]) : nullptr;
}

// Whether one value is well formed. REQUIRES: array.Validate() succeeded.
bool IsValidAt(const arrow::Array& array, std::int64_t row);

template <typename ListArray>
bool IsValidList(const arrow::Array& array, std::int64_t row) {
  const auto& list = static_cast<const ListArray&>(array);
  const std::int64_t begin = list.value_offset(row);
  const std::int64_t end = list.value_offset(row + 1);
  if (begin < 0 || begin > end || end > list.values()->length()) return false;
  for (std::int64_t i = begin; i < end; ++i) {
    if (!IsValidAt(*list.values(), i)) return false;
  }
  return true;
}

bool IsValidAt(const arrow::Array& array, std::int64_t row) {
  if (array.IsNull(row)) return true;
  switch (array.type_id()) {
    case Type::LIST:
      return IsValidList<arrow::ListArray>(array, row);
    case Type::LARGE_LIST:
      return IsValidList<arrow::LargeListArray>(array, row);
    case Type::MAP:
      return IsValidList<arrow::MapArray>(array, row);
    case Type::FIXED_SIZE_LIST:
      return IsValidList<arrow::FixedSizeListArray>(array, row);
    case Type::STRUCT: {
      const auto& fields = static_cast<const arrow::StructArray&>(array);
      for (int i = 0; i < fields.num_fields(); ++i) {
        if (!IsValidAt(*fields.field(i), row)) return false;
      }
      return true;
    }
    default:
      return array.Slice(row, 1)->ValidateFull().ok();
  }
}

// Puts runs of rows and single nulls together again.
class RowPieces {
 public:
  explicit RowPieces(std::shared_ptr<arrow::DataType> type) : type_(std::move(type)) {}

  void Add(std::shared_ptr<arrow::Array> piece) { pieces_.push_back(std::move(piece)); }
  Status AddNull() {
    MS_ASSIGN_OR_RETURN(auto null, arrow::MakeArrayOfNull(type_, 1));
    Add(std::move(null));
    return Status::OK();
  }
  Result<std::shared_ptr<arrow::Array>> Finish() { return arrow::Concatenate(pieces_); }

 private:
  const std::shared_ptr<arrow::DataType> type_;
  arrow::ArrayVector pieces_;
};

Result<std::shared_ptr<arrow::Array>> ToJsonText(const arrow::Array& array) {
  arrow::StringBuilder builder;
  std::string text;
  for (std::int64_t row = 0; row < array.length(); ++row) {
    if (array.IsNull(row)) {
      MS_RETURN_NOT_OK(builder.AppendNull());
      continue;
    }
    text.clear();
    MS_RETURN_NOT_OK(WriteJson(array, row, text));
    MS_RETURN_NOT_OK(builder.Append(text));
  }
  return builder.Finish();
}

}  // namespace

Result<std::shared_ptr<arrow::Field>> PlainField(const arrow::Field& field) {
  MS_ASSIGN_OR_RETURN(auto type, PlainType(*field.type()));
  if (IsJsonText(field)) return JsonTextField(field.name())->WithNullable(field.nullable());
  return arrow::field(field.name(), std::move(type), field.nullable());
}

Result<std::shared_ptr<arrow::Schema>> PlainSchema(
    const arrow::Schema& schema, const std::string& file_name
) {
  arrow::FieldVector fields;
  for (const auto& field : schema.fields()) {
    auto plain = PlainField(*field);
    if (!plain.ok()) {
      return Status::NotImplemented(
          "column \"", field->name(), "\" of ", file_name, " ", plain.status().message()
      );
    }
    fields.push_back(std::move(plain).ValueUnsafe());
  }
  return arrow::schema(std::move(fields));
}

Result<std::shared_ptr<arrow::Array>> ToPlain(const std::shared_ptr<arrow::Array>& array) {
  const arrow::DataType& type = *array->type();
  MS_ASSIGN_OR_RETURN(const auto plain, PlainType(type));
  auto data = array->data()->Copy();
  switch (type.id()) {
    case Type::EXTENSION:
      data->type = static_cast<const arrow::ExtensionType&>(type).storage_type();
      return ToPlain(arrow::MakeArray(data));
    case Type::DICTIONARY: {
      MS_ASSIGN_OR_RETURN(
          auto values, Cast(array, static_cast<const arrow::DictionaryType&>(type).value_type())
      );
      return ToPlain(values);
    }
    case Type::RUN_END_ENCODED: {
      InitializeCompute();
      MS_ASSIGN_OR_RETURN(const arrow::Datum values, arrow::compute::RunEndDecode(array));
      return ToPlain(values.make_array());
    }
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      return Cast(array, plain);
    case Type::LIST_VIEW:
    case Type::LARGE_LIST_VIEW: {
      const auto& item = type.field(0);
      MS_ASSIGN_OR_RETURN(
          auto lists,
          Cast(array, type.id() == Type::LIST_VIEW ? arrow::list(item) : arrow::large_list(item))
      );
      return ToPlain(lists);
    }
    default:
      break;
  }
  for (auto& child : data->child_data) {
    MS_ASSIGN_OR_RETURN(const auto plain_child, ToPlain(arrow::MakeArray(child)));
    child = plain_child->data();
  }
  data->type = plain;
  return arrow::MakeArray(data);
}

std::shared_ptr<arrow::DataType> WiderType(
    const std::shared_ptr<arrow::DataType>& a, const std::shared_ptr<arrow::DataType>& b
) {
  if (a->Equals(*b) || b->id() == Type::NA) return a;
  if (a->id() == Type::NA) return b;
  const auto is_number = [](Type::type id) {
    return arrow::is_integer(id) || arrow::is_floating(id);
  };
  if (is_number(a->id()) && is_number(b->id())) return WiderNumber(a, b);
  const auto are = [&](Type::type small, Type::type large) {
    return (a->id() == small && b->id() == large) || (a->id() == large && b->id() == small);
  };
  if (are(Type::STRING, Type::LARGE_STRING)) return arrow::large_utf8();
  if (are(Type::BINARY, Type::LARGE_BINARY)) return arrow::large_binary();
  return a->id() == b->id() && arrow::is_nested(a->id()) ? WiderNested(*a, *b) : nullptr;
}

Result<std::shared_ptr<arrow::Array>> Convert(
    const std::shared_ptr<arrow::Array>& array,
    const arrow::Field& field,
    std::vector<std::int64_t>& misfits
) {
  if (array->type()->Equals(*field.type())) return array;
  if (IsJsonText(field)) return ToJsonText(*array);
  auto whole = Cast(array, field.type());
  if (whole.ok() || whole.status().IsOutOfMemory()) return whole;
  RowPieces pieces(field.type());
  for (std::int64_t row = 0; row < array->length(); ++row) {
    auto one = Cast(array->Slice(row, 1), field.type());
    if (one.ok()) {
      pieces.Add(std::move(one).ValueUnsafe());
    } else {
      misfits.push_back(row);
      MS_RETURN_NOT_OK(pieces.AddNull());
    }
  }
  return pieces.Finish();
}

Result<std::shared_ptr<arrow::Array>> Validated(
    const std::shared_ptr<arrow::Array>& array, std::vector<std::int64_t>& invalid
) {
  if (array->ValidateFull().ok()) {
    [[likely]] return array;
  }
  if (!array->Validate().ok()) {
    for (std::int64_t row = 0; row < array->length(); ++row) invalid.push_back(row);
    return arrow::MakeArrayOfNull(array->type(), array->length());
  }
  RowPieces pieces(array->type());
  for (std::int64_t row = 0; row < array->length(); ++row) {
    if (IsValidAt(*array, row)) {
      pieces.Add(array->Slice(row, 1));
    } else {
      invalid.push_back(row);
      MS_RETURN_NOT_OK(pieces.AddNull());
    }
  }
  return pieces.Finish();
}

}  // namespace millstream
