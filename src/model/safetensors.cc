// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/checked.h"
#include "model/json_file.h"

namespace millstream {
namespace {

using nlohmann::json;

constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr std::size_t kTensorsMax = 65536;
constexpr std::size_t kDimensionsMax = 4;

std::optional<TensorType> SupportedType(std::string_view type) {
  if (type == "F32") return TensorType::kF32;
  if (type == "F16") return TensorType::kF16;
  if (type == "BF16") return TensorType::kBF16;
  return std::nullopt;
}

bool IsCount(const json& value) {
  return value.is_number_unsigned() && value.get<std::uint64_t>() <= INT64_MAX;
}

/// Reads {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}; offsets are relative to
/// the data.
Result<TensorEntry> ReadEntry(
    const std::string& name, const json& value, std::uint64_t data_begin
) {
  const auto malformed = [&](const char* what) {
    return Status::Invalid("tensor ", Quoted(name), " has a malformed ", what);
  };
  TensorEntry entry;
  entry.name = name;
  if (!value.is_object()) return malformed("entry");
  const auto type = value.find("dtype");
  const auto shape = value.find("shape");
  const auto offsets = value.find("data_offsets");
  if (type == value.end() || !type->is_string()) return malformed("dtype");
  if (shape == value.end() || !shape->is_array()) return malformed("shape");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2 ||
      !IsCount((*offsets)[0]) || !IsCount((*offsets)[1])) {
    return malformed("data_offsets");
  }
  if (shape->size() > kDimensionsMax) return malformed("shape: it has more than 4 dimensions");
  for (const json& dimension : *shape) {
    if (!IsCount(dimension)) return malformed("shape");
    entry.shape.push_back(dimension.get<std::int64_t>());
  }
  const auto begin = (*offsets)[0].get<std::uint64_t>();
  const auto end = (*offsets)[1].get<std::uint64_t>();
  if (end < begin) return malformed("data_offsets");
  entry.begin = data_begin + begin;  // both below 2^63
  entry.size = end - begin;
  const auto supported = SupportedType(type->get_ref<const std::string&>());
  if (!supported) {
    entry.unsupported = type->get<std::string>();
    return entry;
  }
  entry.type = *supported;
  const bool is_empty = entry.size == 0;
  if (!is_empty && TensorBytes(entry.type, entry.shape) != entry.size) {
    return malformed("length: its shape and its data_offsets disagree");
  }
  return entry;
}

}  // namespace

Result<SafetensorsHeader> SafetensorsHeader::Parse(std::span<const std::byte> file) {
  std::uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) {
    return Status::Invalid("not a safetensors file: it is shorter than a header");
  }
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  const auto data_begin = (CheckedSize(sizeof header_bytes) + header_bytes).value();
  if (header_bytes > kHeaderBytesMax || !data_begin || *data_begin > file.size()) {
    return Status::Invalid(
        "the header states a length of ",
        header_bytes,
        " bytes: not a safetensors file, or a truncated one"
    );
  }
  SafetensorsHeader header;
  header.data_begin = *data_begin;
  const std::string_view text(
      reinterpret_cast<const char*>(file.data()) + sizeof header_bytes, header_bytes
  );
  auto parsed = ParseObject(text, "__metadata__");
  if (!parsed.ok()) {
    return parsed.status().WithMessage("safetensors header: ", parsed.status().message());
  }
  if (parsed->size() > kTensorsMax) {
    return Status::Invalid("the header states more than ", kTensorsMax, " tensors");
  }
  for (const auto& [name, value] : parsed->items()) {
    MS_ASSIGN_OR_RETURN(TensorEntry entry, ReadEntry(name, value, header.data_begin));
    header.tensors.push_back(std::move(entry));
  }
  MS_RETURN_NOT_OK(CheckEntries(header.tensors, header.data_begin, file.size()));
  return header;
}

}  // namespace millstream
