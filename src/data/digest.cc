// SPDX-License-Identifier: Apache-2.0
#include "data/digest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "arrow/array.h"
#include "arrow/compute/api_vector.h"
#include "arrow/extension_type.h"
#include "arrow/type.h"
#include "arrow/util/bit_run_reader.h"
#include "arrow/util/float16.h"
#include "data/input.h"
#include "data/json_value.h"

namespace millstream {
namespace {

using arrow::Array;
using arrow::Type;

// A running hash of bytes. Small pieces are gathered, since the hash likes large ones.
class ByteHash {
 public:
  ByteHash() { XXH3_128bits_reset(&state_); }

  void Add(const void* bytes, std::size_t size) {
    if (size > gathered_.size() - num_gathered_) Flush();
    if (size > gathered_.size()) {
      XXH3_128bits_update(&state_, bytes, size);
    } else if (size > 0) {
      std::memcpy(gathered_.data() + num_gathered_, bytes, size);
      num_gathered_ += size;
    }
  }
  template <typename Value>
  void AddValue(Value value) {
    static_assert(std::is_arithmetic_v<Value>);
    Add(&value, sizeof(value));
  }
  XXH128_hash_t Digest() {
    Flush();
    return XXH3_128bits_digest(&state_);
  }

 private:
  void Flush() {
    XXH3_128bits_update(&state_, gathered_.data(), num_gathered_);
    num_gathered_ = 0;
  }

  XXH3_state_t state_{};
  std::size_t num_gathered_ = 0;
  std::array<char, 4096> gathered_{};
};

// The values of one column, or of one child of a nested column: which are null, and the others one
// after the other. Values below a null are no values. A string is its length and its bytes, a list
// its length and its items.
class ColumnDigest {
 public:
  explicit ColumnDigest(const arrow::Field& field) : is_json_text_(IsJsonText(field)) {
    const arrow::DataType* type = field.type().get();
    if (type->id() == Type::DICTIONARY) {
      type = static_cast<const arrow::DictionaryType&>(*type).value_type().get();
    } else if (type->id() == Type::EXTENSION) {
      type = static_cast<const arrow::ExtensionType&>(*type).storage_type().get();
    }
    for (const auto& child : type->fields()) {
      children_.push_back(std::make_unique<ColumnDigest>(*child));
    }
  }

  // Adds the values in [begin, end) of the array.
  Status Add(const Array& array, std::int64_t begin, std::int64_t end);
  void AddTo(ByteHash& whole);

 private:
  Status AddValid(const Array& array, std::int64_t begin, std::int64_t end);
  Status AddDecoded(const Array& array, std::int64_t begin, std::int64_t end);
  void AddJsonTexts(const arrow::StringArray& array, std::int64_t begin, std::int64_t end);
  void AddText(std::string_view text) {
    lengths_.AddValue(static_cast<std::uint64_t>(text.size()));
    values_.Add(text.data(), text.size());
  }
  template <typename BinaryArray>
  void AddTexts(const BinaryArray& array, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      lengths_.AddValue(static_cast<std::uint64_t>(array.value_length(i)));
    }
    // Adjacent in memory, as the range has no nulls.
    const auto first = array.value_offset(begin);
    const auto size = static_cast<std::size_t>(array.value_offset(end) - first);
    if (size > 0) values_.Add(array.value_data()->data() + first, size);
  }
  template <typename FloatArray>
  void AddFloats(const FloatArray& array, std::int64_t begin, std::int64_t end) {
    using Float = typename FloatArray::value_type;
    for (std::int64_t i = begin; i < end; ++i) {
      const Float value = array.Value(i);
      values_.AddValue(std::isnan(value) ? std::numeric_limits<Float>::quiet_NaN() : value);
    }
  }
  template <typename ListArray>
  Status AddLists(const ListArray& array, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      lengths_.AddValue(static_cast<std::uint64_t>(array.value_length(i)));
    }
    return children_[0]->Add(*array.values(), array.value_offset(begin), array.value_offset(end));
  }
  template <typename ListViewArray>
  Status AddListViews(const ListViewArray& array, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      lengths_.AddValue(static_cast<std::uint64_t>(array.value_length(i)));
      const std::int64_t offset = array.value_offset(i);
      MS_RETURN_NOT_OK(children_[0]->Add(*array.values(), offset, offset + array.value_length(i)));
    }
    return Status::OK();
  }

  const bool is_json_text_;
  std::uint64_t count_ = 0;
  ByteHash nulls_;  // their positions
  ByteHash lengths_;
  ByteHash values_;
  std::vector<std::unique_ptr<ColumnDigest>> children_;
};

Status ColumnDigest::Add(const Array& array, std::int64_t begin, std::int64_t end) {
  if (array.type_id() == Type::DICTIONARY) return AddDecoded(array, begin, end);
  if (array.type_id() == Type::EXTENSION) {
    return Add(*static_cast<const arrow::ExtensionArray&>(array).storage(), begin, end);
  }
  if (is_json_text_ && array.type_id() == Type::STRING) {
    AddJsonTexts(static_cast<const arrow::StringArray&>(array), begin, end);
    return Status::OK();
  }
  const auto add_nulls = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) nulls_.AddValue(count_++);
  };
  if (array.type_id() == Type::NA) {
    add_nulls(begin, end);
    return Status::OK();
  }
  const std::uint8_t* validity = array.null_count() == 0 ? nullptr : array.null_bitmap_data();
  std::int64_t done = begin;
  MS_RETURN_NOT_OK(arrow::internal::VisitSetBitRuns(
      validity,
      array.offset() + begin,
      end - begin,
      [&](std::int64_t position, std::int64_t length) {
        const std::int64_t from = begin + position;
        add_nulls(done, from);
        done = from + length;
        count_ += static_cast<std::uint64_t>(length);
        return AddValid(array, from, done);
      }
  ));
  add_nulls(done, end);
  return Status::OK();
}

Status ColumnDigest::AddDecoded(const Array& array, std::int64_t begin, std::int64_t end) {
  const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
  MS_ASSIGN_OR_RETURN(
      const auto values,
      arrow::compute::Take(*coded.dictionary(), *coded.indices()->Slice(begin, end - begin))
  );
  return Add(*values, 0, values->length());
}

void ColumnDigest::AddJsonTexts(
    const arrow::StringArray& array, std::int64_t begin, std::int64_t end
) {
  std::string canonical;
  for (std::int64_t i = begin; i < end; ++i, ++count_) {
    canonical.clear();
    if (array.IsValid(i)) WriteCanonicalJson(array.GetView(i), canonical);
    if (array.IsNull(i) || canonical == "null") {
      nulls_.AddValue(count_);
    } else {
      AddText(canonical);
    }
  }
}

// The range has no nulls.
Status ColumnDigest::AddValid(const Array& array, std::int64_t begin, std::int64_t end) {
  switch (array.type_id()) {
    case Type::BOOL:
      for (std::int64_t i = begin; i < end; ++i) {
        values_.AddValue(static_cast<const arrow::BooleanArray&>(array).Value(i));
      }
      return Status::OK();
    case Type::HALF_FLOAT:
      for (std::int64_t i = begin; i < end; ++i) {
        const auto half =
            arrow::util::Float16::FromBits(static_cast<const arrow::HalfFloatArray&>(array).Value(i)
            );
        constexpr std::uint16_t kNan = 0x7e00;
        values_.AddValue(half.is_nan() ? kNan : half.bits());
      }
      return Status::OK();
    case Type::FLOAT:
      return AddFloats(static_cast<const arrow::FloatArray&>(array), begin, end), Status::OK();
    case Type::DOUBLE:
      return AddFloats(static_cast<const arrow::DoubleArray&>(array), begin, end), Status::OK();
    case Type::STRING:
    case Type::BINARY:
      return AddTexts(static_cast<const arrow::BinaryArray&>(array), begin, end), Status::OK();
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
      return AddTexts(static_cast<const arrow::LargeBinaryArray&>(array), begin, end), Status::OK();
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      for (std::int64_t i = begin; i < end; ++i) {
        AddText(static_cast<const arrow::BinaryViewArray&>(array).GetView(i));
      }
      return Status::OK();
    case Type::LIST:
    case Type::MAP:
      return AddLists(static_cast<const arrow::ListArray&>(array), begin, end);
    case Type::LARGE_LIST:
      return AddLists(static_cast<const arrow::LargeListArray&>(array), begin, end);
    case Type::FIXED_SIZE_LIST:
      return AddLists(static_cast<const arrow::FixedSizeListArray&>(array), begin, end);
    case Type::LIST_VIEW:
      return AddListViews(static_cast<const arrow::ListViewArray&>(array), begin, end);
    case Type::LARGE_LIST_VIEW:
      return AddListViews(static_cast<const arrow::LargeListViewArray&>(array), begin, end);
    case Type::STRUCT:
      for (std::size_t i = 0; i < children_.size(); ++i) {
        const auto& child =
            static_cast<const arrow::StructArray&>(array).field(static_cast<int>(i));
        MS_RETURN_NOT_OK(children_[i]->Add(*child, begin, end));
      }
      return Status::OK();
    default:
      break;
  }
  if (!arrow::is_fixed_width(array.type_id())) {
    return Status::NotImplemented("no digest of values of type ", array.type()->ToString());
  }
  const int width = array.type()->byte_width();
  const std::uint8_t* values = array.data()->buffers[1]->data() + (array.offset() + begin) * width;
  values_.Add(values, static_cast<std::size_t>((end - begin) * width));
  return Status::OK();
}

void ColumnDigest::AddTo(ByteHash& whole) {
  whole.AddValue(count_);
  for (ByteHash* part : {&nulls_, &lengths_, &values_}) {
    const XXH128_hash_t hash = part->Digest();
    whole.AddValue(hash.low64);
    whole.AddValue(hash.high64);
  }
  for (const auto& child : children_) child->AddTo(whole);
}

// The name of the type of the values, whether or not they are encoded by a dictionary.
std::string LogicalName(const arrow::Field& field) {
  const arrow::DataType& type = *field.type();
  if (IsJsonText(field)) return "json";
  if (type.id() == Type::DICTIONARY) {
    return TypeName(*static_cast<const arrow::DictionaryType&>(type).value_type());
  }
  if (type.num_fields() == 0) return TypeName(type);
  std::string name = type.name();
  if (type.id() == Type::FIXED_SIZE_LIST) {
    name += fmt::format("[{}]", static_cast<const arrow::FixedSizeListType&>(type).list_size());
  }
  const bool is_map = type.id() == Type::MAP;
  for (const auto& child : is_map ? type.field(0)->type()->fields() : type.fields()) {
    const bool has_names = type.id() == Type::STRUCT;  // the name of a list's items says nothing
    name += fmt::format("<{}:{}>", has_names ? child->name() : "", LogicalName(*child));
  }
  return name;
}

}  // namespace

struct RowDigest::State {
  std::shared_ptr<arrow::Schema> schema;
  std::vector<std::unique_ptr<ColumnDigest>> columns;
  std::int64_t num_rows = 0;
};

RowDigest::RowDigest(std::shared_ptr<arrow::Schema> schema) : state_(std::make_unique<State>()) {
  for (const auto& field : schema->fields()) {
    state_->columns.push_back(std::make_unique<ColumnDigest>(*field));
  }
  state_->schema = std::move(schema);
}

RowDigest::~RowDigest() = default;

Status RowDigest::Add(const arrow::RecordBatch& batch) {
  if (batch.num_columns() != state_->schema->num_fields()) {
    return Status::Invalid(
        "a batch of ", batch.num_columns(), " columns, expected ", state_->schema->num_fields()
    );
  }
  for (int i = 0; i < batch.num_columns(); ++i) {
    MS_RETURN_NOT_OK(
        state_->columns[static_cast<std::size_t>(i)]->Add(*batch.column(i), 0, batch.num_rows())
    );
  }
  state_->num_rows += batch.num_rows();
  return Status::OK();
}

std::string RowDigest::Hex() const {
  ByteHash whole;
  whole.AddValue(state_->num_rows);
  for (std::size_t i = 0; i < state_->columns.size(); ++i) {
    const arrow::Field& field = *state_->schema->field(static_cast<int>(i));
    for (const std::string& text : {field.name(), LogicalName(field)}) {
      whole.AddValue(static_cast<std::uint64_t>(text.size()));
      whole.Add(text.data(), text.size());
    }
    state_->columns[i]->AddTo(whole);
  }
  const XXH128_hash_t hash = whole.Digest();
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace millstream
