// SPDX-License-Identifier: Apache-2.0
#include "data/inference.h"

#include <algorithm>
#include <array>
#include <utility>

#include "arrow/type.h"

namespace millstream {
namespace {

constexpr double kShareMin = 0.95;
constexpr std::size_t kFieldsMax = 1000;
constexpr int kNestingMax = 32;
constexpr std::size_t kDecimalDigitsMax = 38;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

std::size_t PassDigits(std::string_view text, std::size_t i) {
  while (i < text.size() && IsDigit(text[i])) ++i;
  return i;
}

// Compares digit strings without leading zeros.
bool IsAtMost(std::string_view digits, std::string_view limit) {
  return digits.size() != limit.size() ? digits.size() < limit.size() : digits <= limit;
}

struct Kind {
  const char* name;
  std::int64_t count;
};

std::array<Kind, 5> Kinds(const ValueCounts& counts) {
  return {
      {{"bool", counts.bools},
       {"number", counts.numbers()},
       {"string", counts.strings},
       {"list", counts.lists},
       {"object", counts.objects}}
  };
}

Kind Commonest(const ValueCounts& counts) {
  const auto kinds = Kinds(counts);
  return *std::max_element(kinds.begin(), kinds.end(), [](const Kind& a, const Kind& b) {
    return a.count < b.count;
  });
}

bool HasShare(const Kind& kind, std::int64_t total) {
  return static_cast<double>(kind.count) >= kShareMin * static_cast<double>(total);
}

InferredType NumberType(const ValueCounts& counts) {
  if (counts.doubles + counts.non_finite > 0) return {arrow::float64(), 0};
  if (counts.big_uints + counts.big_ints + counts.huge_ints == 0) return {arrow::int64(), 0};
  if (counts.big_ints + counts.huge_ints + counts.negatives == 0) return {arrow::uint64(), 0};
  return {arrow::decimal128(kDecimalDigitsMax, 0), counts.huge_ints};
}

bool IsBeyondDecimals(const ValueCounts& counts) {
  return counts.doubles == 0 &&
         !HasShare({"", counts.numbers() - counts.huge_ints}, counts.numbers());
}

// Whether some part of the column has no fixed fields, or numbers beyond every type, so that the
// whole is kept as JSON text.
bool IsOpenEnded(const ValueCounts& counts) {
  const Kind kind = Commonest(counts);
  if (!HasShare(kind, counts.total())) return false;
  switch (kind.name[0]) {
    case 'o':
      return counts.open_ended || counts.fields.empty() ||
             std::any_of(counts.fields.begin(), counts.fields.end(), [](const auto& field) {
               return IsOpenEnded(*field);
             });
    case 'l':
      return counts.open_ended || IsOpenEnded(*counts.items);
    case 'n':
      return IsBeyondDecimals(counts);
    default:
      return false;
  }
}

Status MixedKinds(const ValueCounts& counts, const std::string& path, const std::string& column) {
  std::string seen;
  for (const Kind& kind : Kinds(counts)) {
    if (kind.count == 0) continue;
    if (!seen.empty()) seen += ", ";
    seen += std::to_string(kind.count) + " " + kind.name + (kind.count == 1 ? "" : "s");
  }
  return Status::Invalid(
      "column \"",
      path,
      "\" has values of several types (",
      seen,
      "), and none makes up 95 %; say what it is below `input:`, for instance `schema: {",
      column,
      ": json}` to keep any value as its text, or `schema: {",
      column,
      ": string}` to make the others errors of their rows"
  );
}

Result<InferredType> InferAt(
    const ValueCounts& counts, const std::string& path, const std::string& column
) {
  const std::int64_t total = counts.total();
  if (total == 0) return InferredType{arrow::utf8(), 0};
  const Kind kind = Commonest(counts);
  if (!HasShare(kind, total)) return MixedKinds(counts, path, column);
  InferredType inferred{nullptr, 0};
  switch (kind.name[0]) {
    case 'b':
      inferred.type = arrow::boolean();
      break;
    case 'n':
      inferred = NumberType(counts);
      break;
    case 's':
      inferred.type = arrow::utf8();
      break;
    case 'l': {
      MS_ASSIGN_OR_RETURN(inferred, InferAt(*counts.items, path + "[]", column));
      inferred.type = arrow::list(inferred.type);
      break;
    }
    default: {
      arrow::FieldVector fields;
      for (std::size_t i = 0; i < counts.fields.size(); ++i) {
        const std::string& name = counts.field_names.names()[i];
        MS_ASSIGN_OR_RETURN(
            InferredType field,
            InferAt(*counts.fields[i], std::string(path).append(".").append(name), column)
        );
        fields.push_back(arrow::field(name, std::move(field.type)));
        inferred.num_misfits += field.num_misfits;
      }
      inferred.type = arrow::struct_(fields);
    }
  }
  inferred.num_misfits += total - kind.count;
  return inferred;
}

}  // namespace

NumberKind ClassifyNumber(std::string_view text) {
  std::size_t i = 0;
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) ++i;
  const std::size_t begin = i;
  i = PassDigits(text, i);
  if (i == begin || (text[begin] == '0' && i > begin + 1)) return NumberKind::kNone;
  const std::string_view digits = text.substr(begin, i - begin);
  if (i == text.size()) {
    if (digits.size() < 19) return NumberKind::kInt;
    if (IsAtMost(digits, negative ? "9223372036854775808" : "9223372036854775807")) {
      return NumberKind::kInt;
    }
    if (!negative && IsAtMost(digits, "18446744073709551615")) return NumberKind::kBigUint;
    return digits.size() <= kDecimalDigitsMax ? NumberKind::kBigInt : NumberKind::kHugeInt;
  }
  if (text[i] == '.') {
    const std::size_t fraction = i + 1;
    i = PassDigits(text, fraction);
    if (i == fraction) return NumberKind::kNone;
  }
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    const std::size_t exponent = i;
    i = PassDigits(text, exponent);
    if (i == exponent) return NumberKind::kNone;
  }
  return i == text.size() ? NumberKind::kDouble : NumberKind::kNone;
}

bool IsNonFinite(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return text == "NaN" || text == "nan" || text == "Infinity" || text == "inf";
}

bool IsBool(std::string_view text) {
  return text == "true" || text == "false" || text == "True" || text == "False" || text == "TRUE" ||
         text == "FALSE";
}

ValueCounts& ValueCounts::Field(std::string_view name, std::size_t& guess) {
  std::size_t place = 0;
  if (const auto found = field_names.Find(name, guess)) {
    place = *found;
  } else {
    place = field_names.Add(std::string(name));
    fields.push_back(std::make_unique<ValueCounts>());
  }
  guess = place + 1;
  return *fields[place];
}

const ValueCounts* ValueCounts::FindField(std::string_view name) const {
  const auto place = field_names.Find(name, 0);
  return place ? fields[*place].get() : nullptr;
}

void ValueCounts::AddJson(const JsonNode& value, int depth) {
  switch (value.kind()) {
    case JsonKind::kNull:
      return;
    case JsonKind::kBool:
      ++bools;
      return;
    case JsonKind::kString:
      ++strings;
      return;
    case JsonKind::kNumber:
      AddNumber(value.text());
      return;
    case JsonKind::kArray: {
      ++lists;
      if (items == nullptr) items = std::make_unique<ValueCounts>();
      if (depth >= kNestingMax) {
        open_ended = true;
        return;
      }
      (void)value.ForEachItem([&](const JsonNode& item) {
        items->AddJson(item, depth + 1);
        return Status::OK();
      });
      return;
    }
    case JsonKind::kObject: {
      ++objects;
      open_ended = open_ended || depth >= kNestingMax || fields.size() > kFieldsMax;
      if (open_ended) return;
      std::size_t guess = 0;
      (void)value.ForEachMember([&](std::string_view name, const JsonNode& member) {
        Field(name, guess).AddJson(member, depth + 1);
        return Status::OK();
      });
    }
  }
}

bool ValueCounts::AddNumber(std::string_view text) {
  switch (ClassifyNumber(text)) {
    case NumberKind::kNone:
      return false;
    case NumberKind::kInt:
      ++ints;
      break;
    case NumberKind::kBigUint:
      ++big_uints;
      break;
    case NumberKind::kBigInt:
      ++big_ints;
      break;
    case NumberKind::kHugeInt:
      ++huge_ints;
      break;
    case NumberKind::kDouble:
      ++doubles;
      break;
  }
  if (text[0] == '-') ++negatives;
  return true;
}

void ValueCounts::AddCell(std::string_view cell, bool quoted) {
  if (cell.empty() && !quoted) return;
  if (AddNumber(cell)) return;
  if (IsBool(cell)) {
    ++bools;
  } else if (IsNonFinite(cell)) {
    ++non_finite;
  } else {
    ++strings;
  }
}

Result<InferredType> InferJsonType(const ValueCounts& counts, const std::string& column) {
  if (IsOpenEnded(counts)) return InferredType{nullptr, 0};
  return InferAt(counts, column, column);
}

InferredType InferCsvType(const ValueCounts& counts) {
  const std::int64_t total = counts.total();
  const Kind kind = Commonest(counts);
  if (total == 0 || !HasShare(kind, total) || kind.name[0] == 's') return {arrow::utf8(), 0};
  const bool only_names = kind.name[0] == 'n' && counts.non_finite == counts.numbers();
  if (only_names || (kind.name[0] == 'n' && IsBeyondDecimals(counts))) return {arrow::utf8(), 0};
  InferredType inferred =
      kind.name[0] == 'b' ? InferredType{arrow::boolean(), 0} : NumberType(counts);
  inferred.num_misfits += total - kind.count;
  return inferred;
}

}  // namespace millstream
