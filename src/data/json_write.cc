// SPDX-License-Identifier: Apache-2.0
// Arrow values and parsed values as JSON text.
#include <charconv>
#include <cmath>
#include <utility>

#include "arrow/array.h"
#include "arrow/extension_type.h"
#include "arrow/type.h"
#include "arrow/type_traits.h"
#include "arrow/util/base64.h"
#include "arrow/util/float16.h"
#include "arrow/visit_array_inline.h"
#include "data/input.h"
#include "data/iso_time.h"
#include "data/json_value.h"

namespace millstream {
namespace {

using arrow::Type;

constexpr std::size_t kNumberBytesMax = 40;

template <typename Derived, typename Base>
const Derived& As(const Base& base) {
  return static_cast<const Derived&>(base);
}

template <typename Integer>
void WriteInteger(Integer value, std::string& out) {
  char text[kNumberBytesMax];
  out.append(text, std::to_chars(text, text + kNumberBytesMax, value).ptr);
}

// Always with a point or an exponent, so that it reads back as a float.
template <typename Float>
void WriteFloat(Float value, std::string& out) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "\"NaN\"" : value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
    return;
  }
  char text[kNumberBytesMax];
  const std::string_view written(
      text, static_cast<std::size_t>(std::to_chars(text, text + kNumberBytesMax, value).ptr - text)
  );
  out += written;
  if (written.find_first_of(".e") == written.npos) out += ".0";
}

void WriteBytes(std::string_view bytes, std::string& out) {
  out += '"';
  out += arrow::util::base64_encode(bytes);
  out += '"';
}

void WriteTime(std::int64_t value, arrow::TimeUnit::type unit, std::string& out) {
  if (value < 0 || value >= kSecondsPerDay * UnitsPerSecond(unit)) return WriteInteger(value, out);
  out += '"';
  WriteIsoTime(value, unit, out);
  out += '"';
}

void WriteDateTime(const arrow::Array& array, std::int64_t row, std::string& out) {
  constexpr std::int64_t kDay = kSecondsPerDay * 1000;
  out += '"';
  if (array.type_id() == Type::DATE32) {
    WriteIsoDate(As<arrow::Date32Array>(array).Value(row), out);
  } else if (array.type_id() == Type::DATE64) {
    const std::int64_t value = As<arrow::Date64Array>(array).Value(row);
    if (value % kDay == 0) {
      WriteIsoDate(value / kDay, out);
    } else {
      WriteIsoTimestamp(value, arrow::TimeUnit::MILLI, false, out);
    }
  } else {
    const auto& type = As<arrow::TimestampType>(*array.type());
    WriteIsoTimestamp(
        As<arrow::TimestampArray>(array).Value(row), type.unit(), !type.timezone().empty(), out
    );
  }
  out += '"';
}

Status WriteChild(
    const arrow::Array& array, std::int64_t row, const arrow::Field& field, std::string& out
) {
  if (!IsJsonText(field) || array.IsNull(row)) return WriteJson(array, row, out);
  WriteCanonicalJson(As<arrow::StringArray>(array).GetView(row), out);
  return Status::OK();
}

template <typename ListArray>
Status WriteList(const arrow::Array& array, std::int64_t row, std::string& out) {
  const auto& list = As<ListArray>(array);
  const std::int64_t begin = list.value_offset(row);
  const std::int64_t end = begin + list.value_length(row);
  out += '[';
  for (std::int64_t i = begin; i < end; ++i) {
    if (i != begin) out += ',';
    MS_RETURN_NOT_OK(WriteChild(*list.values(), i, *array.type()->field(0), out));
  }
  out += ']';
  return Status::OK();
}

Status WriteStruct(const arrow::StructArray& array, std::int64_t row, std::string& out) {
  out += '{';
  for (int i = 0; i < array.num_fields(); ++i) {
    const arrow::Field& field = *array.type()->field(i);
    if (i != 0) out += ',';
    WriteJsonString(field.name(), out);
    out += ':';
    MS_RETURN_NOT_OK(WriteChild(*array.field(i), row, field, out));
  }
  out += '}';
  return Status::OK();
}

Status WriteMap(const arrow::MapArray& array, std::int64_t row, std::string& out) {
  const auto& type = As<arrow::MapType>(*array.type());
  const bool is_object = arrow::is_string(type.key_type()->id());
  const auto& entries =
      As<arrow::StructArray>(*array.values());  // keys() and items() forget its offset
  out += is_object ? '{' : '[';
  for (std::int64_t i = array.value_offset(row); i < array.value_offset(row + 1); ++i) {
    if (i != array.value_offset(row)) out += ',';
    if (!is_object) out += '[';
    MS_RETURN_NOT_OK(WriteJson(*entries.field(0), i, out));
    out += is_object ? ':' : ',';
    MS_RETURN_NOT_OK(WriteChild(*entries.field(1), i, *type.item_field(), out));
    if (!is_object) out += ']';
  }
  out += is_object ? '}' : ']';
  return Status::OK();
}

// Writes the value at `row`, which is no null.
struct ValueWriter {
  std::int64_t row;
  std::string& out;

  template <typename Array>
  Status Visit(const Array& array) {
    using T = typename Array::TypeClass;
    if constexpr (arrow::is_boolean_type<T>::value) {
      out += array.Value(row) ? "true" : "false";
    } else if constexpr (arrow::is_half_float_type<T>::value) {
      WriteFloat(arrow::util::Float16::FromBits(array.Value(row)).ToFloat(), out);
    } else if constexpr (arrow::is_floating_type<T>::value) {
      WriteFloat(array.Value(row), out);
    } else if constexpr (arrow::is_integer_type<T>::value || arrow::is_duration_type<T>::value) {
      WriteInteger(array.Value(row), out);
    } else if constexpr (arrow::is_decimal_type<T>::value) {
      out += array.FormatValue(row);
    } else if constexpr (arrow::is_fixed_size_binary_type<T>::value) {
      WriteBytes(array.GetView(row), out);
    } else if constexpr (requires { T::is_utf8; }) {
      T::is_utf8 ? WriteJsonString(array.GetView(row), out) : WriteBytes(array.GetView(row), out);
    } else if constexpr (arrow::is_time_type<T>::value) {
      WriteTime(array.Value(row), As<T>(*array.type()).unit(), out);
    } else if constexpr (arrow::is_date_type<T>::value || arrow::is_timestamp_type<T>::value) {
      WriteDateTime(array, row, out);
    } else if constexpr (arrow::is_list_like_type<T>::value || arrow::is_list_view_type<T>::value) {
      return WriteList<Array>(array, row, out);
    } else {
      return Status::NotImplemented("no JSON for values of type ", array.type()->ToString());
    }
    return Status::OK();
  }
  Status Visit(const arrow::StructArray& array) { return WriteStruct(array, row, out); }
  Status Visit(const arrow::MapArray& array) { return WriteMap(array, row, out); }
  Status Visit(const arrow::DictionaryArray& array) {
    return WriteJson(*array.dictionary(), array.GetValueIndex(row), out);
  }
  Status Visit(const arrow::ExtensionArray& array) { return WriteJson(*array.storage(), row, out); }
};

}  // namespace

Status WriteJson(const arrow::Array& array, std::int64_t row, std::string& out) {
  if (array.IsNull(row)) {
    out += "null";
    return Status::OK();
  }
  ValueWriter writer{row, out};
  return arrow::VisitArrayInline(array, &writer);
}

bool HasJson(const arrow::DataType& type) {
  if (type.id() == Type::DICTIONARY) return HasJson(*As<arrow::DictionaryType>(type).value_type());
  if (type.id() == Type::EXTENSION) return HasJson(*As<arrow::ExtensionType>(type).storage_type());
  if (arrow::is_interval(type.id()) || arrow::is_union(type.id()) ||
      type.id() == Type::RUN_END_ENCODED) {
    return false;
  }
  for (const auto& field : type.fields()) {
    if (!HasJson(*field->type())) return false;
  }
  return true;
}

void WriteJsonString(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  std::size_t written = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') [[likely]] {
      continue;
    }
    out += text.substr(written, i - written);
    written = i + 1;
    out += '\\';
    switch (c) {
      case '"':
      case '\\':
        out += static_cast<char>(c);
        break;
      case '\n':
        out += 'n';
        break;
      case '\r':
        out += 'r';
        break;
      case '\t':
        out += 't';
        break;
      default:
        out += {'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
    }
  }
  out += text.substr(written);
  out += '"';
}

void WriteJson(const JsonNode& value, std::string& out) {
  bool first = true;
  switch (value.kind()) {
    case JsonKind::kNull:
      out += "null";
      break;
    case JsonKind::kBool:
      out += value.boolean() ? "true" : "false";
      break;
    case JsonKind::kNumber:
      out += value.text();
      break;
    case JsonKind::kString:
      WriteJsonString(value.text(), out);
      break;
    case JsonKind::kArray:
      out += '[';
      (void)value.ForEachItem([&](const JsonNode& item) {
        if (!std::exchange(first, false)) out += ',';
        WriteJson(item, out);
        return Status::OK();
      });
      out += ']';
      break;
    case JsonKind::kObject:
      out += '{';
      (void)value.ForEachMember([&](std::string_view key, const JsonNode& member) {
        if (!std::exchange(first, false)) out += ',';
        WriteJsonString(key, out);
        out += ':';
        WriteJson(member, out);
        return Status::OK();
      });
      out += '}';
      break;
  }
}

void WriteCanonicalJson(std::string_view json, std::string& out) {
  thread_local JsonDocument document;
  if (document.Parse(json).ok()) {
    WriteJson(document.root(), out);
  } else {
    WriteJsonString(json, out);
  }
}

}  // namespace millstream
