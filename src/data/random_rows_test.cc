// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "arrow/array.h"
#include "arrow/array/builder_binary.h"
#include "arrow/array/builder_decimal.h"
#include "arrow/array/builder_dict.h"
#include "arrow/buffer.h"
#include "arrow/type.h"
#include "arrow/util/bit_util.h"
#include "arrow/util/decimal.h"
#include "arrow/util/float16.h"
#include "data/testing.h"

namespace millstream {
namespace {

using arrow::ArrayData;
using arrow::Type;
using ArrayPtr = std::shared_ptr<arrow::Array>;
using TypePtr = std::shared_ptr<arrow::DataType>;

std::int64_t Below(TestRandom& random, std::int64_t bound) {
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
}
bool OneIn(TestRandom& random, std::int64_t n) {
  return Below(random, n) == 0;
}

std::shared_ptr<arrow::Buffer> Validity(std::int64_t length, TestRandom& random) {
  auto bits = arrow::AllocateEmptyBitmap(length).ValueOrDie();
  const std::int64_t nulls_in = 1 + Below(random, 8);
  for (std::int64_t i = 0; i < length; ++i) {
    arrow::bit_util::SetBitTo(bits->mutable_data(), i, !OneIn(random, nulls_in));
  }
  return bits;
}

std::string RandomText(TestRandom& random) {
  static const std::vector<std::string> kPieces = {
      "a",
      "B",
      "7",
      " ",
      "\t",
      "\n",
      "\r\n",
      "\r",
      "\"",
      "\"\"",
      "'",
      ",",
      ";",
      "\\",
      "\\n",
      std::string(1, '\0'),
      "\x01",
      "\x7f",
      "é",
      "日本",
      "한",
      "😀",
      "\xe2\x80\xa8",
      "null",
      "NaN",
      "true",
      "-1",
      "1e5",
      "{}",
      "[",
      "=",
      "\xef\xbb\xbf"
  };
  std::string text;
  for (std::int64_t n = Below(random, 6); n > 0; --n) text += kPieces[random() % kPieces.size()];
  return text;
}

// Bits of any width with all magnitudes alike, and the extremes.
std::uint64_t RandomBits(TestRandom& random) {
  if (OneIn(random, 8)) return 0;
  if (OneIn(random, 8)) return ~std::uint64_t{0};
  if (OneIn(random, 8)) return std::uint64_t{1} << Below(random, 64);
  return random() >> Below(random, 64);
}

double RandomDouble(TestRandom& random) {
  static constexpr std::array<double, 8> kOdd = {
      0.0, -0.0, 1.0, 0.1, 1e22, 5e-324, std::numeric_limits<double>::infinity(), -1e300
  };
  if (OneIn(random, 3)) return kOdd[random() % kOdd.size()];
  if (OneIn(random, 8)) return std::numeric_limits<double>::quiet_NaN();
  if (OneIn(random, 2)) return static_cast<double>(Below(random, 100'000)) / 100;
  const std::uint64_t bits = random();
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value == value ? value : 1.5;
}

std::int64_t RandomInt(const arrow::DataType& type, TestRandom& random) {
  constexpr std::int64_t kMsPerDay = 86'400'000;
  switch (type.id()) {
    case Type::DATE64:
      return (Below(random, 4'000'000) - 2'000'000) * kMsPerDay;
    case Type::TIME32: {
      const bool seconds =
          static_cast<const arrow::Time32Type&>(type).unit() == arrow::TimeUnit::SECOND;
      return Below(random, seconds ? kMsPerDay / 1000 : kMsPerDay);
    }
    case Type::TIME64: {
      const bool micros =
          static_cast<const arrow::Time64Type&>(type).unit() == arrow::TimeUnit::MICRO;
      return Below(random, micros ? kMsPerDay * 1000 : kMsPerDay * 1'000'000);
    }
    case Type::TIMESTAMP:  // Parquet keeps seconds as milliseconds
      if (static_cast<const arrow::TimestampType&>(type).unit() == arrow::TimeUnit::SECOND) {
        return Below(random, 1'000'000'000'000) - 300'000'000'000;
      }
      break;
    default:
      break;
  }
  return static_cast<std::int64_t>(RandomBits(random));
}

ArrayPtr FixedWidth(const TypePtr& type, std::int64_t length, TestRandom& random) {
  const auto width = static_cast<std::size_t>(type->byte_width());
  auto values = arrow::AllocateBuffer(length * type->byte_width()).ValueOrDie();
  for (std::int64_t i = 0; i < length; ++i) {
    std::uint8_t* to = values->mutable_data() + i * type->byte_width();
    const double number = RandomDouble(random);
    const auto single = static_cast<float>(
        number == number && number > 1e38 ? 1e30
        : number < -1e38                  ? -1e30
                                          : number
    );
    const std::uint16_t half = arrow::util::Float16::FromFloat(single).bits();
    const std::int64_t integer = RandomInt(*type, random);
    switch (type->id()) {
      case Type::DOUBLE:
        std::memcpy(to, &number, width);
        break;
      case Type::FLOAT:
        std::memcpy(to, &single, width);
        break;
      case Type::HALF_FLOAT:
        std::memcpy(to, &half, width);
        break;
      case Type::FIXED_SIZE_BINARY:
        for (std::size_t b = 0; b < width; ++b) to[b] = static_cast<std::uint8_t>(random());
        break;
      default:
        std::memcpy(to, &integer, width);
    }
  }
  return arrow::MakeArray(
      ArrayData::Make(type, length, {Validity(length, random), std::move(values)})
  );
}

template <typename Builder>
ArrayPtr Texts(Builder&& builder, bool binary, std::int64_t length, TestRandom& random) {
  for (std::int64_t i = 0; i < length; ++i) {
    std::string text = RandomText(random);
    if (binary) text += static_cast<char>(random());
    const auto status = OneIn(random, 4) ? builder.AppendNull() : builder.Append(text);
    if (!status.ok()) status.Abort();
  }
  return builder.Finish().ValueOrDie();
}

template <typename Builder, typename Decimal>
ArrayPtr Decimals(const TypePtr& type, std::int64_t length, TestRandom& random) {
  const auto& decimal = static_cast<const arrow::DecimalType&>(*type);
  Builder builder(type);
  for (std::int64_t i = 0; i < length; ++i) {
    std::string digits = OneIn(random, 2) ? "-" : "";
    for (std::int64_t n = 1 + Below(random, decimal.precision()); n > 0; --n) {
      digits += static_cast<char>('0' + Below(random, 10));
    }
    const Decimal value =
        Decimal::FromString(digits).ValueOrDie();  // the digits of the unscaled value
    const auto status = OneIn(random, 4) ? builder.AppendNull() : builder.Append(value);
    if (!status.ok()) status.Abort();
  }
  return builder.Finish().ValueOrDie();
}

template <typename Offset>
ArrayPtr Lists(
    const TypePtr& type, std::int64_t length, TestRandom& random, bool null_keys = true
) {
  auto offsets =
      arrow::AllocateBuffer((length + 1) * static_cast<std::int64_t>(sizeof(Offset))).ValueOrDie();
  auto* at = reinterpret_cast<Offset*>(offsets->mutable_data());
  at[0] = 0;
  for (std::int64_t i = 0; i < length; ++i) {
    at[i + 1] = at[i] + static_cast<Offset>(Below(random, 4));
  }
  ArrayPtr items = RandomArray(type->field(0)->type(), at[length], random);
  if (!null_keys) {  // a map's entries and keys are never null
    auto entries = items->data()->Copy();
    entries->buffers[0] = nullptr;
    entries->null_count = 0;
    auto keys = entries->child_data[0]->Copy();
    keys->buffers[0] = nullptr;
    keys->null_count = 0;
    entries->child_data[0] = keys;
    items = arrow::MakeArray(entries);
  }
  return arrow::MakeArray(
      ArrayData::Make(type, length, {Validity(length, random), std::move(offsets)}, {items->data()})
  );
}

ArrayPtr NewArray(const TypePtr& type, std::int64_t length, TestRandom& random) {
  switch (type->id()) {
    case Type::NA:
      return arrow::MakeArray(ArrayData::Make(type, length, {nullptr}, length));
    case Type::BOOL:
      return arrow::MakeArray(
          ArrayData::Make(type, length, {Validity(length, random), Validity(length, random)})
      );
    case Type::STRING:
      return Texts(arrow::StringBuilder(), false, length, random);
    case Type::LARGE_STRING:
      return Texts(arrow::LargeStringBuilder(), false, length, random);
    case Type::BINARY:
      return Texts(arrow::BinaryBuilder(), true, length, random);
    case Type::LARGE_BINARY:
      return Texts(arrow::LargeBinaryBuilder(), true, length, random);
    case Type::DECIMAL128:
      return Decimals<arrow::Decimal128Builder, arrow::Decimal128>(type, length, random);
    case Type::DECIMAL256:
      return Decimals<arrow::Decimal256Builder, arrow::Decimal256>(type, length, random);
    case Type::DICTIONARY:
      return Texts(arrow::StringDictionary32Builder(), false, length, random);
    case Type::LIST:
      return Lists<std::int32_t>(type, length, random);
    case Type::LARGE_LIST:
      return Lists<std::int64_t>(type, length, random);
    case Type::MAP:
      return Lists<std::int32_t>(type, length, random, false);
    case Type::FIXED_SIZE_LIST: {
      const int size = static_cast<const arrow::FixedSizeListType&>(*type).list_size();
      const ArrayPtr items = RandomArray(type->field(0)->type(), length * size, random);
      return arrow::MakeArray(
          ArrayData::Make(type, length, {Validity(length, random)}, {items->data()})
      );
    }
    case Type::STRUCT: {
      std::vector<std::shared_ptr<ArrayData>> children;
      for (const auto& field : type->fields()) {
        children.push_back(RandomArray(field->type(), length, random)->data());
      }
      return arrow::MakeArray(
          ArrayData::Make(type, length, {Validity(length, random)}, std::move(children))
      );
    }
    default:
      return FixedWidth(type, length, random);
  }
}

}  // namespace

TypePtr RandomType(TestRandom& random, int depth) {
  using arrow::TimeUnit;
  static const std::vector<TypePtr> kFlat = {
      arrow::null(),
      arrow::boolean(),
      arrow::int8(),
      arrow::int16(),
      arrow::int32(),
      arrow::int64(),
      arrow::uint8(),
      arrow::uint16(),
      arrow::uint32(),
      arrow::uint64(),
      arrow::float16(),
      arrow::float32(),
      arrow::float64(),
      arrow::utf8(),
      arrow::large_utf8(),
      arrow::binary(),
      arrow::large_binary(),
      arrow::fixed_size_binary(5),
      arrow::date32(),
      arrow::date64(),
      arrow::time32(TimeUnit::SECOND),
      arrow::time32(TimeUnit::MILLI),
      arrow::time64(TimeUnit::MICRO),
      arrow::time64(TimeUnit::NANO),
      arrow::timestamp(TimeUnit::SECOND),
      arrow::timestamp(TimeUnit::MILLI, "UTC"),
      arrow::timestamp(TimeUnit::MICRO),
      arrow::timestamp(TimeUnit::NANO, "Europe/Berlin"),
      arrow::duration(TimeUnit::MILLI),
      arrow::decimal128(7, 2),
      arrow::decimal128(38, 10),
      arrow::decimal256(76, 0),
      arrow::dictionary(arrow::int32(), arrow::utf8())
  };
  const auto flat = [&] { return kFlat[random() % kFlat.size()]; };
  if (depth == 0 || OneIn(random, 2)) return flat();
  const TypePtr inner = RandomType(random, depth - 1);
  switch (Below(random, 6)) {
    case 0:
      return arrow::list(inner);
    case 1:
      return arrow::large_list(inner);
    case 2:
      return arrow::fixed_size_list(inner, 2);
    case 3:
      return arrow::map(arrow::utf8(), inner);
    case 4:
      return arrow::map(arrow::int64(), inner);
    default:
      return arrow::struct_(
          {arrow::field("a", inner), arrow::field("odd \"name\"", RandomType(random, depth - 1))}
      );
  }
}

ArrayPtr RandomArray(const TypePtr& type, std::int64_t length, TestRandom& random) {
  if (OneIn(random, 2)) return NewArray(type, length, random);
  const std::int64_t before = Below(random, 10);
  return NewArray(type, before + length + Below(random, 10), random)->Slice(before, length);
}

std::shared_ptr<arrow::Schema> RandomSchema(int num_columns, TestRandom& random) {
  arrow::FieldVector fields;
  for (int i = 0; i < num_columns; ++i) {
    fields.push_back(
        arrow::field(std::string(1, 'c').append(std::to_string(i)), RandomType(random, 3))
    );
  }
  return arrow::schema(std::move(fields));
}

std::shared_ptr<arrow::RecordBatch> RandomBatch(
    const std::shared_ptr<arrow::Schema>& schema, std::int64_t num_rows, TestRandom& random
) {
  arrow::ArrayVector columns;
  for (const auto& field : schema->fields()) {
    columns.push_back(RandomArray(field->type(), num_rows, random));
  }
  return arrow::RecordBatch::Make(schema, num_rows, std::move(columns));
}

}  // namespace millstream
