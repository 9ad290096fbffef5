// SPDX-License-Identifier: Apache-2.0
#include "data/restore.h"

#include <utility>

#include "arrow/array.h"
#include "arrow/compute/api_vector.h"
#include "arrow/compute/cast.h"
#include "arrow/type.h"
#include "data/json_value.h"

namespace millstream {

using arrow::Type;

std::shared_ptr<arrow::DataType> WithoutDictionaries(const std::shared_ptr<arrow::DataType>& type) {
  if (type->id() == Type::DICTIONARY) {
    return WithoutDictionaries(static_cast<const arrow::DictionaryType&>(*type).value_type());
  }
  arrow::FieldVector fields;
  bool changed = false;
  for (const auto& field : type->fields()) {
    fields.push_back(field->WithType(WithoutDictionaries(field->type())));
    changed = changed || !fields.back()->type()->Equals(*field->type());
  }
  if (!changed) return type;
  switch (type->id()) {
    case Type::LIST:
      return arrow::list(fields[0]);
    case Type::LARGE_LIST:
      return arrow::large_list(fields[0]);
    case Type::FIXED_SIZE_LIST:
      return arrow::fixed_size_list(
          fields[0], static_cast<const arrow::FixedSizeListType&>(*type).list_size()
      );
    case Type::STRUCT:
      return arrow::struct_(fields);
    case Type::MAP: {
      const auto& entry = fields[0]->type()->fields();
      return std::make_shared<arrow::MapType>(entry[0], entry[1]);
    }
    default:
      return type;
  }
}

Result<std::shared_ptr<arrow::Array>> Restore(
    const std::shared_ptr<arrow::Array>& array, const std::shared_ptr<arrow::DataType>& type
) {
  if (array->type()->Equals(*type)) return array;
  if (type->id() == Type::DICTIONARY) {
    const auto& wanted = static_cast<const arrow::DictionaryType&>(*type);
    MS_ASSIGN_OR_RETURN(const auto values, Restore(array, wanted.value_type()));
    MS_ASSIGN_OR_RETURN(const arrow::Datum encoded, arrow::compute::DictionaryEncode(values));
    const auto encoded_array = encoded.make_array();
    const auto& coded = static_cast<const arrow::DictionaryArray&>(*encoded_array);
    MS_ASSIGN_OR_RETURN(
        const auto indices, arrow::compute::Cast(*coded.indices(), wanted.index_type())
    );
    return arrow::DictionaryArray::FromArrays(type, indices, coded.dictionary());
  }
  if (array->type_id() == type->id() && type->num_fields() > 0) {
    // Child by child, since a cast of a nested type cannot make dictionaries.
    auto data = array->data()->Copy();
    data->type = type;
    if (static_cast<int>(data->child_data.size()) != type->num_fields()) {
      return Status::Invalid("a column is not of type ", TypeName(*type));
    }
    for (int i = 0; i < type->num_fields(); ++i) {
      auto& child = data->child_data[static_cast<std::size_t>(i)];
      MS_ASSIGN_OR_RETURN(
          const auto restored, Restore(arrow::MakeArray(child), type->field(i)->type())
      );
      child = restored->data();
    }
    return arrow::MakeArray(data);
  }
  return arrow::compute::Cast(*array, type);
}

Result<std::shared_ptr<arrow::RecordBatch>> Restore(
    const arrow::RecordBatch& batch, const std::shared_ptr<arrow::Schema>& schema
) {
  if (batch.schema()->field_names() != schema->field_names()) {
    return Status::Invalid("the columns are not those of the job");
  }
  arrow::ArrayVector columns;
  for (int i = 0; i < batch.num_columns(); ++i) {
    MS_ASSIGN_OR_RETURN(auto column, Restore(batch.column(i), schema->field(i)->type()));
    columns.push_back(std::move(column));
  }
  return arrow::RecordBatch::Make(schema, batch.num_rows(), std::move(columns));
}

}  // namespace millstream
