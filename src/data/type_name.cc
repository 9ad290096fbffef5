// SPDX-License-Identifier: Apache-2.0
// Types by the names that job files give them.
#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "arrow/extension_type.h"
#include "arrow/type.h"
#include "data/json_value.h"

namespace millstream {
namespace {

using arrow::DataType;
using arrow::Type;
using TypePtr = std::shared_ptr<DataType>;

constexpr int kTypeDepthMax = 64;

// The first name of a type is the one that TypeName gives.
const auto& SimpleTypes() {
  static const auto* const kTypes = new std::vector<std::pair<std::string_view, TypePtr>>{
      {"null", arrow::null()},
      {"bool", arrow::boolean()},
      {"int8", arrow::int8()},
      {"int16", arrow::int16()},
      {"int32", arrow::int32()},
      {"int64", arrow::int64()},
      {"uint8", arrow::uint8()},
      {"uint16", arrow::uint16()},
      {"uint32", arrow::uint32()},
      {"uint64", arrow::uint64()},
      {"float16", arrow::float16()},
      {"float", arrow::float32()},
      {"double", arrow::float64()},
      {"string", arrow::utf8()},
      {"large_string", arrow::large_utf8()},
      {"string_view", arrow::utf8_view()},
      {"binary", arrow::binary()},
      {"large_binary", arrow::large_binary()},
      {"binary_view", arrow::binary_view()},
      {"date32", arrow::date32()},
      {"date64", arrow::date64()},
      {"boolean", arrow::boolean()},
      {"int", arrow::int64()},
      {"integer", arrow::int64()},
      {"half", arrow::float16()},
      {"float32", arrow::float32()},
      {"float64", arrow::float64()},
      {"number", arrow::float64()},
      {"str", arrow::utf8()},
      {"utf8", arrow::utf8()},
      {"text", arrow::utf8()},
      {"large_utf8", arrow::large_utf8()},
      {"bytes", arrow::binary()},
      {"date", arrow::date32()},
      {"timestamp", arrow::timestamp(arrow::TimeUnit::MICRO)},
      {"duration", arrow::duration(arrow::TimeUnit::MICRO)},
  };
  return *kTypes;
}

constexpr std::array<std::pair<std::string_view, arrow::TimeUnit::type>, 4> kUnits{{
    {"s", arrow::TimeUnit::SECOND},
    {"ms", arrow::TimeUnit::MILLI},
    {"us", arrow::TimeUnit::MICRO},
    {"ns", arrow::TimeUnit::NANO},
}};

std::string_view UnitName(arrow::TimeUnit::type unit) {
  for (const auto& [name, known] : kUnits) {
    if (known == unit) return name;
  }
  return "";
}

// A recursive descent over the name; one method a rule.
class TypeParser {
 public:
  explicit TypeParser(std::string_view text) : text_(text) {}

  Result<TypePtr> Whole() {
    MS_ASSIGN_OR_RETURN(TypePtr type, AnyType());
    SkipSpace();
    if (at_ != text_.size()) return Wrong("the end");
    return type;
  }

 private:
  Status Wrong(std::string_view expected) const {
    return Status::Invalid(
        "expected ",
        std::string(expected),
        " at character ",
        at_ + 1,
        " of the type \"",
        std::string(text_),
        "\": types are string, int64, double, bool, date32, timestamp[us, UTC], decimal(10, 2), "
        "list<string>, "
        "struct<name: string, age: int64>, map<string, int64> and so on"
    );
  }

  void SkipSpace() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool Take(char c) {
    SkipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  Status Expect(char c) { return Take(c) ? Status::OK() : Wrong(std::string("'") + c + "'"); }
  // Letters, digits and what zones have: "Europe/Berlin", "+02:00".
  std::string_view Word(std::string_view more = "") {
    SkipSpace();
    const std::size_t begin = at_;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      const bool plain =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
      if (!plain && more.find(c) == more.npos) break;
    }
    return text_.substr(begin, at_ - begin);
  }
  Result<std::int32_t> Number() {
    (void)Take('+');
    SkipSpace();
    std::int32_t number = 0;
    const auto [end, error] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), number);
    if (error != std::errc()) return Wrong("a number");
    at_ = static_cast<std::size_t>(end - text_.data());
    return number;
  }
  Result<arrow::TimeUnit::type> Unit() {
    const std::size_t begin = at_;
    const std::string_view word = Word();
    for (const auto& [name, unit] : kUnits) {
      if (name == word) return unit;
    }
    at_ = begin;
    return Wrong("a unit (s, ms, us, ns)");
  }
  // A plain word, or anything in double quotes, in which a doubled quote is one.
  Result<std::string> FieldName() {
    if (!Take('"')) {
      const std::string_view word = Word("-$.");
      if (word.empty()) return Wrong("a field's name");
      return std::string(word);
    }
    std::string name;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        ++at_;
        if (at_ == text_.size() || text_[at_] != '"') return name;
      }
      name += text_[at_];
    }
    return Wrong("'\"'");
  }
  Result<std::shared_ptr<arrow::Field>> RestOfField(std::string name) {
    MS_ASSIGN_OR_RETURN(TypePtr type, AnyType());
    const std::size_t begin = at_;
    const bool not_null = Word() == "not" && Word() == "null";
    if (!not_null) at_ = begin;
    return arrow::field(std::move(name), std::move(type), !not_null);
  }

  Result<TypePtr> AnyType() {
    if (++depth_ > kTypeDepthMax) return Wrong("fewer levels");
    SkipSpace();
    const std::size_t begin = at_;
    const std::string_view word = Word();
    auto type = Parametric(word);
    if (type.ok() && *type == nullptr) {
      for (const auto& [name, simple] : SimpleTypes()) {
        if (name == word) type = simple;
      }
    }
    --depth_;
    if (type.ok() && *type == nullptr) {
      at_ = begin;
      return Wrong("a type");
    }
    return type;
  }

  // Types with something in brackets after their word; null if there is no such word here.
  Result<TypePtr> Parametric(std::string_view word) {
    if (word.starts_with("decimal")) return Decimal(word);
    if (Take('[')) {
      MS_ASSIGN_OR_RETURN(TypePtr type, Bracketed(word));
      if (type != nullptr) MS_RETURN_NOT_OK(Expect(']'));
      return type;
    }
    if (Take('<')) {
      MS_ASSIGN_OR_RETURN(TypePtr type, Nested(word));
      if (type != nullptr) MS_RETURN_NOT_OK(Expect('>'));
      return type;
    }
    return TypePtr();
  }

  Result<TypePtr> Bracketed(std::string_view word) {
    if (word == "fixed_size_binary") {
      MS_ASSIGN_OR_RETURN(const std::int32_t width, Number());
      return width < 0 ? Result<TypePtr>(Wrong("a width")) : arrow::fixed_size_binary(width);
    }
    if (word != "time32" && word != "time64" && word != "timestamp" && word != "duration") {
      return TypePtr();
    }
    MS_ASSIGN_OR_RETURN(const auto unit, Unit());
    const bool is_fine = unit == arrow::TimeUnit::MICRO || unit == arrow::TimeUnit::NANO;
    if (word == "time32") return is_fine ? Result<TypePtr>(Wrong("s or ms")) : arrow::time32(unit);
    if (word == "time64") return is_fine ? arrow::time64(unit) : Result<TypePtr>(Wrong("us or ns"));
    if (word == "duration") return arrow::duration(unit);
    if (!Take(',')) return arrow::timestamp(unit);
    const std::size_t begin = at_;
    if (Word() != "tz" || !Take('=')) at_ = begin;
    const std::string_view zone = Word("/+-:");
    if (zone.empty()) return Wrong("a time zone");
    return arrow::timestamp(unit, std::string(zone));
  }

  Result<TypePtr> Nested(std::string_view word) {
    if (word == "struct") return Struct();
    if (word == "map") {
      MS_ASSIGN_OR_RETURN(const TypePtr key, AnyType());
      MS_RETURN_NOT_OK(Expect(','));
      MS_ASSIGN_OR_RETURN(const auto item, RestOfField("value"));
      return std::make_shared<arrow::MapType>(arrow::field("key", key, false), item);
    }
    if (word == "dictionary") {
      MS_ASSIGN_OR_RETURN(const TypePtr value, AnyType());
      MS_RETURN_NOT_OK(Expect(','));
      MS_ASSIGN_OR_RETURN(const TypePtr index, AnyType());
      return arrow::DictionaryType::Make(index, value);
    }
    if (word == "fixed_size_list") {
      MS_ASSIGN_OR_RETURN(const auto item, RestOfField("item"));
      MS_RETURN_NOT_OK(Expect(','));
      MS_ASSIGN_OR_RETURN(const std::int32_t size, Number());
      return size < 0 ? Result<TypePtr>(Wrong("a size")) : arrow::fixed_size_list(item, size);
    }
    using Make = TypePtr (*)(const std::shared_ptr<arrow::Field>&);
    static constexpr std::array<std::pair<std::string_view, Make>, 4> kLists{{
        {"list", [](const auto& item) { return arrow::list(item); }},
        {"large_list", [](const auto& item) { return arrow::large_list(item); }},
        {"list_view", [](const auto& item) { return arrow::list_view(item); }},
        {"large_list_view", [](const auto& item) { return arrow::large_list_view(item); }},
    }};
    for (const auto& [name, make] : kLists) {
      if (name != word) continue;
      MS_ASSIGN_OR_RETURN(const auto item, RestOfField("item"));
      return make(item);
    }
    return TypePtr();
  }

  Result<TypePtr> Struct() {
    arrow::FieldVector fields;
    SkipSpace();
    if (at_ < text_.size() && text_[at_] == '>') return arrow::struct_(fields);
    do {
      MS_ASSIGN_OR_RETURN(std::string name, FieldName());
      MS_RETURN_NOT_OK(Expect(':'));
      MS_ASSIGN_OR_RETURN(auto field, RestOfField(std::move(name)));
      fields.push_back(std::move(field));
    } while (Take(','));
    return arrow::struct_(fields);
  }

  Result<TypePtr> Decimal(std::string_view word) {
    static constexpr std::array<std::pair<std::string_view, Type::type>, 5> kDecimals{{
        {"decimal", Type::DECIMAL128},
        {"decimal32", Type::DECIMAL32},
        {"decimal64", Type::DECIMAL64},
        {"decimal128", Type::DECIMAL128},
        {"decimal256", Type::DECIMAL256},
    }};
    for (const auto& [name, id] : kDecimals) {
      if (name != word) continue;
      MS_RETURN_NOT_OK(Expect('('));
      MS_ASSIGN_OR_RETURN(const std::int32_t precision, Number());
      std::int32_t scale = 0;
      if (Take(',')) {
        MS_ASSIGN_OR_RETURN(scale, Number());
      }
      MS_RETURN_NOT_OK(Expect(')'));
      return arrow::DecimalType::Make(id, precision, scale);
    }
    return TypePtr();
  }

  const std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

bool IsPlainName(std::string_view name) {
  if (name.empty()) return false;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-' || c == '$' || c == '.';
    if (!plain) return false;
  }
  return true;
}

std::string FieldTypeName(const arrow::Field& field) {
  return TypeName(*field.type()) + (field.nullable() ? "" : " not null");
}

std::string StructName(const DataType& type) {
  std::string out = "struct<";
  for (const auto& field : type.fields()) {
    if (out.back() != '<') out += ", ";
    if (IsPlainName(field->name())) {
      out += field->name();
    } else {
      out += '"';
      for (const char c : field->name()) out += c == '"' ? std::string("\"\"") : std::string(1, c);
      out += '"';
    }
    out += ": " + FieldTypeName(*field);
  }
  return out + ">";
}

std::string DecimalName(const arrow::DecimalType& type) {
  const std::string word = type.id() == Type::DECIMAL128 ? "decimal" : type.name();
  return word + "(" + std::to_string(type.precision()) + ", " + std::to_string(type.scale()) + ")";
}

}  // namespace

Result<TypePtr> ParseType(std::string_view name) {
  return TypeParser(name).Whole();
}

std::string TypeName(const DataType& type) {
  switch (type.id()) {
    case Type::TIME32:
    case Type::TIME64:
      return type.name() + "[" +
             std::string(UnitName(static_cast<const arrow::TimeType&>(type).unit())) + "]";
    case Type::DURATION:
      return "duration[" +
             std::string(UnitName(static_cast<const arrow::DurationType&>(type).unit())) + "]";
    case Type::TIMESTAMP: {
      const auto& timestamp = static_cast<const arrow::TimestampType&>(type);
      const std::string& zone = timestamp.timezone();
      return "timestamp[" + std::string(UnitName(timestamp.unit())) +
             (zone.empty() ? "" : ", " + zone) + "]";
    }
    case Type::FIXED_SIZE_BINARY:
      return "fixed_size_binary[" +
             std::to_string(static_cast<const arrow::FixedSizeBinaryType&>(type).byte_width()) +
             "]";
    case Type::DECIMAL32:
    case Type::DECIMAL64:
    case Type::DECIMAL128:
    case Type::DECIMAL256:
      return DecimalName(static_cast<const arrow::DecimalType&>(type));
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::LIST_VIEW:
    case Type::LARGE_LIST_VIEW:
      return type.name() + "<" + FieldTypeName(*type.field(0)) + ">";
    case Type::FIXED_SIZE_LIST:
      return "fixed_size_list<" + FieldTypeName(*type.field(0)) + ", " +
             std::to_string(static_cast<const arrow::FixedSizeListType&>(type).list_size()) + ">";
    case Type::STRUCT:
      return StructName(type);
    case Type::MAP: {
      const auto& map = static_cast<const arrow::MapType&>(type);
      return "map<" + TypeName(*map.key_type()) + ", " + FieldTypeName(*map.item_field()) + ">";
    }
    case Type::DICTIONARY: {
      const auto& dictionary = static_cast<const arrow::DictionaryType&>(type);
      return "dictionary<" + TypeName(*dictionary.value_type()) + ", " +
             TypeName(*dictionary.index_type()) + ">";
    }
    case Type::EXTENSION:
      return TypeName(*static_cast<const arrow::ExtensionType&>(type).storage_type());
    default:
      for (const auto& [name, simple] : SimpleTypes()) {
        if (simple->id() == type.id()) return std::string(name);
      }
      return type.ToString();
  }
}

}  // namespace millstream
