// SPDX-License-Identifier: Apache-2.0
#include "model/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"

namespace millstream {
namespace {

constexpr std::uint64_t kCountMax = 65536;  // of tensors, and of metadata keys
constexpr std::uint32_t kDimensionsMax = 4;
constexpr std::int64_t kAlignmentMax = 4096;

/// Reads forward through a header. A read past the end yields zeros and is remembered, so that a
/// group of reads is judged once.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Scalar() {
    T value{};
    const auto bytes = Bytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> Bytes(std::uint64_t size) {
    if (size > left()) failed_ = true;
    if (failed_) return {};
    const auto bytes = bytes_.subspan(position_, size);
    position_ += size;
    return bytes;
  }

  std::string_view Text() {
    const auto bytes = Bytes(Scalar<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return bytes_.size() - position_; }
  Status status() const {
    if (!failed_) return Status::OK();
    return Status::Invalid(
        "the file ends inside its header (a length after byte ",
        position_,
        " reaches beyond it): the file is truncated or damaged"
    );
  }

 private:
  const std::span<const std::byte> bytes_;
  std::uint64_t position_ = 0;
  bool failed_ = false;
};

/// Bytes of a scalar; 0 for texts, arrays and types that do not exist.
std::uint64_t ScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

Result<GgufValue> ReadValue(Reader& in, std::string_view key) {
  GgufValue value;
  value.type = static_cast<GgufType>(in.Scalar<std::uint32_t>());
  if (value.type == GgufType::kArray) {
    value.is_array = true;
    value.type = static_cast<GgufType>(in.Scalar<std::uint32_t>());
    value.count = in.Scalar<std::uint64_t>();
    if (value.type == GgufType::kArray) {
      return Status::Invalid("metadata key ", Quoted(key), " holds an array of arrays");
    }
  }
  MS_RETURN_NOT_OK(in.status());
  if (value.type == GgufType::kString) {
    if (!(CheckedSize(value.count) * sizeof(std::uint64_t)).Fits(in.left())) {
      return Status::Invalid(
          "metadata key ", Quoted(key), " has more texts than the file has bytes for"
      );
    }
    value.texts.reserve(value.count);
    for (std::uint64_t i = 0; i < value.count; ++i) value.texts.push_back(in.Text());
    MS_RETURN_NOT_OK(in.status());
    return value;
  }
  const std::uint64_t scalar = ScalarBytes(value.type);
  if (scalar == 0) return Status::Invalid("metadata key ", Quoted(key), " has an unknown type");
  const auto size = (CheckedSize(value.count) * scalar).value();
  if (!size || *size > in.left()) {
    return Status::Invalid("metadata key ", Quoted(key), " is longer than the file");
  }
  value.bytes = in.Bytes(*size);
  return value;
}

Result<std::uint64_t> Alignment(const GgufHeader& header) {
  const auto found = header.metadata.find("general.alignment");
  if (found == header.metadata.end()) return 32;
  const GgufValue& value = found->second;
  const std::int64_t alignment = value.is_array ? 0 : value.Integer().value_or(0);
  if (alignment < 8 || alignment > kAlignmentMax || (alignment & (alignment - 1)) != 0) {
    return Status::Invalid("general.alignment is not a power of two within 8 and ", kAlignmentMax);
  }
  return static_cast<std::uint64_t>(alignment);
}

/// The file's number for a type, and its name in messages.
std::string GgmlTypeName(std::uint32_t type) {
  constexpr std::array<std::string_view, 40> kNames = {
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"
  };
  if (type < kNames.size()) return std::string(kNames[type]);
  return "number " + std::to_string(type);
}

std::optional<TensorType> SupportedType(std::uint32_t type) {
  switch (type) {
    case 0:
      return TensorType::kF32;
    case 1:
      return TensorType::kF16;
    case 2:
      return TensorType::kQ4_0;
    case 3:
      return TensorType::kQ4_1;
    case 6:
      return TensorType::kQ5_0;
    case 7:
      return TensorType::kQ5_1;
    case 8:
      return TensorType::kQ8_0;
    case 12:
      return TensorType::kQ4_K;
    case 13:
      return TensorType::kQ5_K;
    case 14:
      return TensorType::kQ6_K;
    case 30:
      return TensorType::kBF16;
    default:
      return std::nullopt;
  }
}

/// Reads a tensor's entry; `begin` is relative to the data still.
Result<TensorEntry> ReadTensor(Reader& in) {
  TensorEntry entry;
  entry.name = in.Text();
  const auto dimensions = in.Scalar<std::uint32_t>();
  MS_RETURN_NOT_OK(in.status());
  if (dimensions < 1 || dimensions > kDimensionsMax) {
    return Status::Invalid(
        "tensor ", Quoted(entry.name), " has ", dimensions, " dimensions, not 1 to ", kDimensionsMax
    );
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto dimension = in.Scalar<std::uint64_t>();
    if (dimension > INT64_MAX) {
      return Status::Invalid("tensor ", Quoted(entry.name), " has an impossible dimension");
    }
    entry.shape.push_back(static_cast<std::int64_t>(dimension));
  }
  std::reverse(entry.shape.begin(), entry.shape.end());  // the file has the innermost first
  const auto type = in.Scalar<std::uint32_t>();
  entry.begin = in.Scalar<std::uint64_t>();
  MS_RETURN_NOT_OK(in.status());
  const auto supported = SupportedType(type);
  if (!supported) {
    return Status::NotImplemented(
        "tensor ",
        Quoted(entry.name),
        " has type ",
        GgmlTypeName(type),
        ", which is not supported; supported: ",
        kSupportedTensorTypes
    );
  }
  entry.type = *supported;
  const auto size = TensorBytes(entry.type, entry.shape);
  if (!size) {
    return Status::Invalid(
        "tensor ",
        Quoted(entry.name),
        " has shape ",
        ShapeText(entry.shape),
        ", which is impossible for ",
        TensorTypeName(entry.type)
    );
  }
  entry.size = *size;
  return entry;
}

struct Counts {
  std::uint64_t tensors = 0;
  std::uint64_t keys = 0;
};

Result<Counts> ReadCounts(Reader& in) {
  if (in.Scalar<std::array<char, 4>>() != std::array{'G', 'G', 'U', 'F'}) {
    return Status::Invalid("not a GGUF file: it does not begin with GGUF");
  }
  const auto version = in.Scalar<std::uint32_t>();
  Counts counts;
  counts.tensors = in.Scalar<std::uint64_t>();
  counts.keys = in.Scalar<std::uint64_t>();
  MS_RETURN_NOT_OK(in.status());
  if (version != 2 && version != 3) {
    return Status::NotImplemented(
        "GGUF version ", version, " is not supported; supported: 2 and 3, little-endian"
    );
  }
  if (counts.tensors > kCountMax) {
    return Status::Invalid("the header states ", counts.tensors, " tensors; at most ", kCountMax);
  }
  if (counts.keys > kCountMax) {
    return Status::Invalid("the header states ", counts.keys, " keys; at most ", kCountMax);
  }
  return counts;
}

template <typename T>
T Load(std::span<const std::byte> bytes, std::uint64_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

std::optional<std::int64_t> GgufValue::Integer(std::uint64_t index) const {
  switch (type) {
    case GgufType::kUint8:
      return Load<std::uint8_t>(bytes, index);
    case GgufType::kInt8:
      return Load<std::int8_t>(bytes, index);
    case GgufType::kUint16:
      return Load<std::uint16_t>(bytes, index);
    case GgufType::kInt16:
      return Load<std::int16_t>(bytes, index);
    case GgufType::kUint32:
      return Load<std::uint32_t>(bytes, index);
    case GgufType::kInt32:
      return Load<std::int32_t>(bytes, index);
    case GgufType::kBool:
      return Load<std::uint8_t>(bytes, index) != 0;
    case GgufType::kInt64:
      return Load<std::int64_t>(bytes, index);
    case GgufType::kUint64: {
      const auto value = Load<std::uint64_t>(bytes, index);
      if (value > INT64_MAX) return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufValue::Number(std::uint64_t index) const {
  if (type == GgufType::kFloat32) return Load<float>(bytes, index);
  if (type == GgufType::kFloat64) return Load<double>(bytes, index);
  const auto integer = Integer(index);
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

Result<GgufHeader> GgufHeader::Parse(std::span<const std::byte> file) {
  GgufHeader header;
  Reader in(file);
  MS_ASSIGN_OR_RETURN(const Counts counts, ReadCounts(in));
  for (std::uint64_t i = 0; i < counts.keys; ++i) {
    const std::string_view key = in.Text();
    MS_RETURN_NOT_OK(in.status());
    MS_ASSIGN_OR_RETURN(GgufValue value, ReadValue(in, key));
    if (!header.metadata.emplace(key, std::move(value)).second) {
      return Status::Invalid("metadata key ", Quoted(key), " appears twice");
    }
  }
  MS_ASSIGN_OR_RETURN(const std::uint64_t alignment, Alignment(header));
  for (std::uint64_t i = 0; i < counts.tensors; ++i) {
    MS_ASSIGN_OR_RETURN(TensorEntry entry, ReadTensor(in));
    if (entry.begin % alignment != 0) {
      return Status::Invalid("tensor ", Quoted(entry.name), " is not aligned to ", alignment);
    }
    header.tensors.push_back(std::move(entry));
  }
  const auto data_begin = CheckedSize(in.position()).AlignedUp(alignment).value();
  if (!data_begin) return Status::Invalid("the header is too long");
  header.data_begin = *data_begin;
  for (TensorEntry& entry : header.tensors) {
    const auto begin = (CheckedSize(header.data_begin) + entry.begin).value();
    if (!begin) return Status::Invalid("tensor ", Quoted(entry.name), " lies outside of the file");
    entry.begin = *begin;
  }
  MS_RETURN_NOT_OK(CheckEntries(header.tensors, header.data_begin, file.size()));
  return header;
}

}  // namespace millstream
