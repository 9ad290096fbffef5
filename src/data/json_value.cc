// SPDX-License-Identifier: Apache-2.0
#include "data/json_value.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_decimal.h"
#include "arrow/array/builder_nested.h"
#include "arrow/array/builder_primitive.h"
#include "arrow/array/builder_time.h"
#include "arrow/scalar.h"
#include "arrow/type.h"
#include "arrow/util/base64.h"
#include "arrow/util/decimal.h"
#include "arrow/util/float16.h"
#include "data/input.h"
#include "data/iso_time.h"

namespace millstream {
namespace {

using arrow::ArrayBuilder;
using arrow::DataType;
using arrow::Type;

// Every function here checks that `value` fits `type`, and appends it if `builder` is not null. A
// nested value is checked as a whole before its first piece is appended.
Status Append(const JsonNode& value, const DataType& type, bool json_text, ArrayBuilder* builder);

constexpr std::size_t kShownBytesMax = 40;

std::string Describe(const JsonNode& value) {
  switch (value.kind()) {
    case JsonKind::kNull:
      return "null";
    case JsonKind::kBool:
      return value.boolean() ? "true" : "false";
    case JsonKind::kNumber:
      return std::string(value.text().size() <= kShownBytesMax ? value.text() : "a long number");
    case JsonKind::kString:
      return "a string";
    case JsonKind::kArray:
      return "an array";
    case JsonKind::kObject:
      return "an object";
  }
  return "";
}

Status WrongKind(const JsonNode& value, const DataType& type) {
  return Status::Invalid("is ", Describe(value), ", expected ", TypeName(type));
}

// For a string or number that the type could have taken if it were another.
Status WrongValue(const JsonNode& value, const char* why, const DataType& type) {
  const std::string_view text = value.text();
  std::string shown = text.size() <= kShownBytesMax ? std::string(text) : "a long value";
  if (value.kind() == JsonKind::kString && text.size() <= kShownBytesMax) {
    shown.clear();
    WriteJsonString(text, shown);
  }
  return Status::Invalid("is ", shown, ", ", why, " ", TypeName(type));
}

// Puts the place of a child before what is wrong with it: "at b" and "at [2] is null" make "at b[2]
// is null".
Status Within(const std::string& place, const Status& status) {
  if (status.ok() || !status.IsInvalid()) return status;
  const std::string& message = status.message();
  if (!message.starts_with("at ")) return Status::Invalid("at ", place, " ", message);
  return Status::Invalid("at ", place, message[3] == '[' ? "" : ".", message.substr(3));
}

template <typename Builder, typename Value>
Status Put(ArrayBuilder* builder, const Value& value) {
  return builder == nullptr ? Status::OK() : static_cast<Builder*>(builder)->Append(value);
}

// The digits of a number that is an integer though it may be written "1.0" or "1e3"; nullopt if it
// is none.
std::optional<std::string> IntegerDigits(std::string_view number) {
  constexpr int kDigitsMax = 20;
  std::string digits;
  std::int64_t exponent = 0;
  const std::size_t e = number.find_first_of("eE");
  if (e != number.npos) {
    std::string_view power = number.substr(e + 1);
    if (power.starts_with('+')) power.remove_prefix(1);
    const auto [end, error] = std::from_chars(power.data(), power.data() + power.size(), exponent);
    if (error != std::errc()) return std::nullopt;
    number = number.substr(0, e);
  }
  const std::size_t point = number.find('.');
  digits = number.substr(0, point);
  if (point != number.npos) {
    digits += number.substr(point + 1);
    exponent -= static_cast<std::int64_t>(number.size() - point - 1);
  }
  for (; exponent < 0; ++exponent) {
    if (!digits.ends_with('0')) return std::nullopt;
    digits.pop_back();
    if (digits.empty() || digits == "-") return "0";
  }
  if (exponent > kDigitsMax) {
    return digits.find_first_of("123456789") == digits.npos ? "0"
                                                            : digits + std::string(kDigitsMax, '0');
  }
  return digits + std::string(static_cast<std::size_t>(exponent), '0');
}

template <typename Builder>
Status AppendInteger(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  using Value = typename Builder::value_type;
  if (value.kind() != JsonKind::kNumber) return WrongKind(value, type);
  std::string_view text = value.text();
  std::optional<std::string> rewritten;
  if (text.find_first_of(".eE") != text.npos) {
    rewritten = IntegerDigits(text);
    if (!rewritten) return WrongValue(value, "expected", type);
    text = *rewritten;
  }
  if (std::is_unsigned_v<Value> && text.find_first_not_of("-0") == text.npos) text = "0";
  Value number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    return WrongValue(value, "out of range for", type);
  }
  return Put<Builder>(builder, number);
}

template <typename Float>
std::optional<Float> FloatOf(std::string_view text) {
  Float number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc()) return number;
  // Too large, or so small that it is zero: only the slower function tells which.
  const std::string copy(text);
  number = std::is_same_v<Float, float> ? static_cast<Float>(std::strtof(copy.c_str(), nullptr))
                                        : static_cast<Float>(std::strtod(copy.c_str(), nullptr));
  if (std::isinf(number)) return std::nullopt;
  return number;
}

// An integer of more digits than a double holds must be the one that the double prints, as
// JavaScript writes them.
bool KeepsDigits(std::string_view text, double number) {
  constexpr std::size_t kDigitsAlwaysHeld = 15;
  if (text.size() <= kDigitsAlwaysHeld || text.find_first_of(".eE") != text.npos) return true;
  constexpr std::size_t kBytes = 32;
  char printed[kBytes];
  const auto end =
      std::to_chars(printed, printed + kBytes, number, std::chars_format::scientific).ptr;
  std::string digits;
  for (const char* c = printed; c != end && *c != 'e'; ++c) {
    if (*c >= '0' && *c <= '9') digits += *c;
  }
  std::string_view wanted = text.starts_with('-') ? text.substr(1) : text;
  if (!wanted.starts_with(digits)) return false;
  return wanted.find_first_not_of('0', digits.size()) == wanted.npos;
}

template <typename Builder, typename Float>
Status AppendFloat(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  std::optional<Float> number;
  if (value.kind() == JsonKind::kNumber) {
    number = FloatOf<Float>(value.text());
    if (!number) return WrongValue(value, "out of range for", type);
    if (std::is_same_v<Float, double> && !KeepsDigits(value.text(), static_cast<double>(*number))) {
      return WrongValue(value, "has more digits than", type);
    }
  } else if (value.kind() == JsonKind::kString) {
    constexpr Float kInfinity = std::numeric_limits<Float>::infinity();
    if (value.text() == "NaN") number = std::numeric_limits<Float>::quiet_NaN();
    if (value.text() == "Infinity") number = kInfinity;
    if (value.text() == "-Infinity") number = -kInfinity;
  }
  if (!number) return WrongKind(value, type);
  if constexpr (std::is_same_v<Builder, arrow::HalfFloatBuilder>) {
    const auto half = arrow::util::Float16::FromFloat(*number);
    if (half.is_infinity() && !std::isinf(*number)) {
      return WrongValue(value, "out of range for", type);
    }
    return Put<Builder>(builder, half.bits());
  } else {
    return Put<Builder>(builder, *number);
  }
}

template <typename Builder>
Status AppendString(
    const JsonNode& value, const DataType& type, bool json_text, ArrayBuilder* builder
) {
  if (json_text) {
    if (builder == nullptr) return Status::OK();
    std::string text;
    WriteJson(value, text);
    return Put<Builder>(builder, std::string_view(text));
  }
  if (value.kind() != JsonKind::kString) return WrongKind(value, type);
  return Put<Builder>(builder, value.text());
}

template <typename Builder>
Status AppendBytes(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kString) return WrongKind(value, type);
  const Result<std::string> bytes = arrow::util::base64_decode(value.text());
  if (!bytes.ok()) return WrongValue(value, "not base64, expected", type);
  if constexpr (std::is_same_v<Builder, arrow::FixedSizeBinaryBuilder>) {
    const int width = static_cast<const arrow::FixedSizeBinaryType&>(type).byte_width();
    if (bytes->size() != static_cast<std::size_t>(width)) {
      return WrongValue(value, "not as long as", type);
    }
  }
  return Put<Builder>(builder, std::string_view(*bytes));
}

template <typename Builder, typename Decimal>
Status AppendDecimal(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kNumber && value.kind() != JsonKind::kString) {
    return WrongKind(value, type);
  }
  const auto& wanted = static_cast<const arrow::DecimalType&>(type);
  Decimal decimal;
  std::int32_t precision = 0;
  std::int32_t scale = 0;
  if (!Decimal::FromString(value.text(), &decimal, &precision, &scale).ok()) {
    return WrongValue(value, "does not fit", type);
  }
  const auto rescaled = decimal.Rescale(scale, wanted.scale());
  if (!rescaled.ok() || !rescaled->FitsInPrecision(wanted.precision())) {
    return WrongValue(value, "does not fit", type);
  }
  return Put<Builder>(builder, *rescaled);
}

Status AppendDate(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kString) return WrongKind(value, type);
  constexpr std::int64_t kDay = kSecondsPerDay * 1000;
  const std::optional<std::int64_t> days = ParseIsoDate(value.text());
  if (type.id() == Type::DATE32) {
    if (!days || static_cast<std::int32_t>(*days) != *days) {
      return WrongValue(value, "expected", type);
    }
    return Put<arrow::Date32Builder>(builder, static_cast<std::int32_t>(*days));
  }
  if (days && std::abs(*days) < std::numeric_limits<std::int64_t>::max() / kDay) {
    return Put<arrow::Date64Builder>(builder, *days * kDay);
  }
  const auto instant = ParseIsoTimestamp(value.text(), arrow::TimeUnit::MILLI, false);
  if (!instant) return WrongValue(value, "expected", type);
  return Put<arrow::Date64Builder>(builder, *instant);
}

Status AppendTime(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  const bool is_32 = type.id() == Type::TIME32;
  // A value beyond a day, which Arrow can hold, is written as its number.
  if (value.kind() == JsonKind::kNumber) {
    return is_32 ? AppendInteger<arrow::Time32Builder>(value, type, builder)
                 : AppendInteger<arrow::Time64Builder>(value, type, builder);
  }
  if (value.kind() != JsonKind::kString) return WrongKind(value, type);
  const auto time = ParseIsoTime(value.text(), static_cast<const arrow::TimeType&>(type).unit());
  if (!time) return WrongValue(value, "expected", type);
  return is_32 ? Put<arrow::Time32Builder>(builder, static_cast<std::int32_t>(*time))
               : Put<arrow::Time64Builder>(builder, *time);
}

Status AppendTimestamp(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kString) return WrongKind(value, type);
  const auto& wanted = static_cast<const arrow::TimestampType&>(type);
  const auto instant = ParseIsoTimestamp(value.text(), wanted.unit(), !wanted.timezone().empty());
  if (!instant) return WrongValue(value, "expected", type);
  return Put<arrow::TimestampBuilder>(builder, *instant);
}

Status AppendBool(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kBool) return WrongKind(value, type);
  return Put<arrow::BooleanBuilder>(builder, value.boolean());
}

Status AppendChild(const JsonNode& value, const arrow::Field& field, ArrayBuilder* builder) {
  if (value.kind() == JsonKind::kNull && !field.nullable()) return WrongKind(value, *field.type());
  return Append(value, *field.type(), IsJsonText(field), builder);
}

Status AppendItems(const JsonNode& value, const arrow::Field& field, ArrayBuilder* items) {
  std::int64_t i = 0;
  return value.ForEachItem([&](const JsonNode& item) {
    const Status status = AppendChild(item, field, items);
    return status.ok() ? (++i, status) : Within(fmt::format("[{}]", i), status);
  });
}

template <typename Builder>
Status AppendList(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kArray) return WrongKind(value, type);
  if constexpr (std::is_same_v<Builder, arrow::FixedSizeListBuilder>) {
    if (value.size() != static_cast<const arrow::FixedSizeListType&>(type).list_size()) {
      return Status::Invalid("is an array of ", value.size(), ", expected ", TypeName(type));
    }
  }
  ArrayBuilder* items = nullptr;
  if (builder != nullptr) {
    auto* list = static_cast<Builder*>(builder);
    items = list->value_builder();
    if constexpr (requires { list->Append(true, std::int64_t{0}); }) {
      MS_RETURN_NOT_OK(list->Append(true, value.size()));
    } else {
      MS_RETURN_NOT_OK(list->Append());
    }
  }
  return AppendItems(value, *type.field(0), items);
}

Status AppendStruct(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  if (value.kind() != JsonKind::kObject) return WrongKind(value, type);
  auto* parent = static_cast<arrow::StructBuilder*>(builder);
  if (parent != nullptr) MS_RETURN_NOT_OK(parent->Append());
  std::vector<std::optional<JsonNode>> members(static_cast<std::size_t>(type.num_fields()));
  std::size_t expected = 0;  // members mostly come in the order of the fields
  MS_RETURN_NOT_OK(value.ForEachMember([&](std::string_view key, const JsonNode& member) {
    std::size_t i = expected;
    if (i >= members.size() || type.field(static_cast<int>(i))->name() != key) {
      for (i = 0; i < members.size() && type.field(static_cast<int>(i))->name() != key;) ++i;
    }
    if (i == members.size()) return Status::Invalid("has an unknown member ", std::string(key));
    members[i] = member;
    expected = i + 1;
    return Status::OK();
  }));
  for (std::size_t i = 0; i < members.size(); ++i) {
    const arrow::Field& field = *type.field(static_cast<int>(i));
    ArrayBuilder* child = parent == nullptr ? nullptr : parent->field_builder(static_cast<int>(i));
    if (const std::optional<JsonNode>& member = members[i]) {
      MS_RETURN_NOT_OK(Within(field.name(), AppendChild(*member, field, child)));
    } else if (!field.nullable()) {
      return Status::Invalid("has no member ", field.name());
    } else if (child != nullptr) {
      MS_RETURN_NOT_OK(child->AppendNull());
    }
  }
  return Status::OK();
}

Status AppendMapPair(const JsonNode& pair, const arrow::MapType& type, arrow::MapBuilder* builder) {
  if (pair.kind() != JsonKind::kArray || pair.size() != 2) {
    return Status::Invalid("is ", Describe(pair), ", expected a [key, value] pair");
  }
  bool is_key = true;
  return pair.ForEachItem([&](const JsonNode& half) {
    ArrayBuilder* child = builder == nullptr ? nullptr
                          : is_key           ? builder->key_builder()
                                             : builder->item_builder();
    const arrow::Field& field = is_key ? *type.key_field() : *type.item_field();
    if (is_key && half.kind() == JsonKind::kNull) return WrongKind(half, *field.type());
    is_key = false;
    return AppendChild(half, field, child);
  });
}

Status AppendMap(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  const auto& map = static_cast<const arrow::MapType&>(type);
  auto* parent = static_cast<arrow::MapBuilder*>(builder);
  const bool has_string_keys =
      map.key_type()->id() == Type::STRING || map.key_type()->id() == Type::LARGE_STRING;
  if (value.kind() != JsonKind::kArray && !(has_string_keys && value.kind() == JsonKind::kObject)) {
    return WrongKind(value, type);
  }
  if (parent != nullptr) MS_RETURN_NOT_OK(parent->Append());
  if (value.kind() == JsonKind::kArray) {
    std::int64_t i = 0;
    return value.ForEachItem([&](const JsonNode& pair) {
      return Within(fmt::format("[{}]", i++), AppendMapPair(pair, map, parent));
    });
  }
  return value.ForEachMember([&](std::string_view key, const JsonNode& member) {
    if (parent != nullptr) {
      MS_RETURN_NOT_OK(
          map.key_type()->id() == Type::STRING
              ? Put<arrow::StringBuilder>(parent->key_builder(), key)
              : Put<arrow::LargeStringBuilder>(parent->key_builder(), key)
      );
    }
    ArrayBuilder* items = parent == nullptr ? nullptr : parent->item_builder();
    return Within(std::string(key), AppendChild(member, *map.item_field(), items));
  });
}

Status AppendDictionary(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  const auto& dictionary = static_cast<const arrow::DictionaryType&>(type);
  if (builder == nullptr) return Append(value, *dictionary.value_type(), false, nullptr);
  MS_ASSIGN_OR_RETURN(auto one, arrow::MakeBuilder(dictionary.value_type()));
  MS_RETURN_NOT_OK(Append(value, *dictionary.value_type(), false, one.get()));
  MS_ASSIGN_OR_RETURN(auto values, one->Finish());
  MS_ASSIGN_OR_RETURN(auto index, arrow::MakeScalar(dictionary.index_type(), 0));
  return builder->AppendScalar(*arrow::DictionaryScalar::Make(index, values));
}

Status AppendNumber(const JsonNode& value, const DataType& type, ArrayBuilder* builder) {
  switch (type.id()) {
    case Type::INT8:
      return AppendInteger<arrow::Int8Builder>(value, type, builder);
    case Type::INT16:
      return AppendInteger<arrow::Int16Builder>(value, type, builder);
    case Type::INT32:
      return AppendInteger<arrow::Int32Builder>(value, type, builder);
    case Type::INT64:
      return AppendInteger<arrow::Int64Builder>(value, type, builder);
    case Type::UINT8:
      return AppendInteger<arrow::UInt8Builder>(value, type, builder);
    case Type::UINT16:
      return AppendInteger<arrow::UInt16Builder>(value, type, builder);
    case Type::UINT32:
      return AppendInteger<arrow::UInt32Builder>(value, type, builder);
    case Type::UINT64:
      return AppendInteger<arrow::UInt64Builder>(value, type, builder);
    case Type::DURATION:
      return AppendInteger<arrow::DurationBuilder>(value, type, builder);
    case Type::HALF_FLOAT:
      return AppendFloat<arrow::HalfFloatBuilder, float>(value, type, builder);
    case Type::FLOAT:
      return AppendFloat<arrow::FloatBuilder, float>(value, type, builder);
    case Type::DOUBLE:
      return AppendFloat<arrow::DoubleBuilder, double>(value, type, builder);
    case Type::DECIMAL32:
      return AppendDecimal<arrow::Decimal32Builder, arrow::Decimal32>(value, type, builder);
    case Type::DECIMAL64:
      return AppendDecimal<arrow::Decimal64Builder, arrow::Decimal64>(value, type, builder);
    case Type::DECIMAL128:
      return AppendDecimal<arrow::Decimal128Builder, arrow::Decimal128>(value, type, builder);
    case Type::DECIMAL256:
      return AppendDecimal<arrow::Decimal256Builder, arrow::Decimal256>(value, type, builder);
    default:
      return WrongKind(value, type);
  }
}

Status Append(const JsonNode& value, const DataType& type, bool json_text, ArrayBuilder* builder) {
  if (value.kind() == JsonKind::kNull) {
    return builder == nullptr ? Status::OK() : builder->AppendNull();
  }
  switch (type.id()) {
    case Type::BOOL:
      return AppendBool(value, type, builder);
    case Type::STRING:
      return AppendString<arrow::StringBuilder>(value, type, json_text, builder);
    case Type::LARGE_STRING:
      return AppendString<arrow::LargeStringBuilder>(value, type, json_text, builder);
    case Type::STRING_VIEW:
      return AppendString<arrow::StringViewBuilder>(value, type, json_text, builder);
    case Type::BINARY:
      return AppendBytes<arrow::BinaryBuilder>(value, type, builder);
    case Type::LARGE_BINARY:
      return AppendBytes<arrow::LargeBinaryBuilder>(value, type, builder);
    case Type::BINARY_VIEW:
      return AppendBytes<arrow::BinaryViewBuilder>(value, type, builder);
    case Type::FIXED_SIZE_BINARY:
      return AppendBytes<arrow::FixedSizeBinaryBuilder>(value, type, builder);
    case Type::DATE32:
    case Type::DATE64:
      return AppendDate(value, type, builder);
    case Type::TIME32:
    case Type::TIME64:
      return AppendTime(value, type, builder);
    case Type::TIMESTAMP:
      return AppendTimestamp(value, type, builder);
    case Type::LIST:
      return AppendList<arrow::ListBuilder>(value, type, builder);
    case Type::LARGE_LIST:
      return AppendList<arrow::LargeListBuilder>(value, type, builder);
    case Type::LIST_VIEW:
      return AppendList<arrow::ListViewBuilder>(value, type, builder);
    case Type::LARGE_LIST_VIEW:
      return AppendList<arrow::LargeListViewBuilder>(value, type, builder);
    case Type::FIXED_SIZE_LIST:
      return AppendList<arrow::FixedSizeListBuilder>(value, type, builder);
    case Type::STRUCT:
      return AppendStruct(value, type, builder);
    case Type::MAP:
      return AppendMap(value, type, builder);
    case Type::DICTIONARY:
      return AppendDictionary(value, type, builder);
    default:
      return AppendNumber(value, type, builder);
  }
}

}  // namespace

Status AppendJson(const JsonNode& value, const DataType& type, ArrayBuilder& builder) {
  if (arrow::is_nested(type.id())) MS_RETURN_NOT_OK(Append(value, type, false, nullptr));
  return Append(value, type, false, &builder);
}

Status AppendJson(std::string_view json, ArrayBuilder& builder) {
  thread_local JsonDocument document;
  MS_RETURN_NOT_OK(document.Parse(json));
  return AppendJson(document.root(), *builder.type(), builder);
}

}  // namespace millstream
