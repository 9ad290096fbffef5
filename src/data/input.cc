// SPDX-License-Identifier: Apache-2.0
#include "data/input.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "arrow/type.h"
#include "arrow/util/key_value_metadata.h"

namespace millstream {
namespace {

constexpr std::array<std::pair<FileFormat, std::string_view>, 8> kFormats{
    {{FileFormat::kJsonl, "jsonl"},
     {FileFormat::kJson, "json"},
     {FileFormat::kCsv, "csv"},
     {FileFormat::kTsv, "tsv"},
     {FileFormat::kText, "text"},
     {FileFormat::kParquet, "parquet"},
     {FileFormat::kArrowFile, "arrow"},
     {FileFormat::kArrowStream, "arrows"}}
};
constexpr const char* kTypeKey = "millstream.type";
constexpr const char* kJsonTypeName = "json";

}  // namespace

std::string_view FormatName(FileFormat format) {
  return kFormats[static_cast<std::size_t>(format)].second;
}

std::optional<FileFormat> FormatFromName(std::string_view name) {
  for (const auto& [format, format_name] : kFormats) {
    if (format_name == name) return format;
  }
  return std::nullopt;
}

std::shared_ptr<arrow::Field> JsonTextField(std::string name) {
  return arrow::field(
      std::move(name), arrow::utf8(), true, arrow::key_value_metadata({kTypeKey}, {kJsonTypeName})
  );
}

bool IsJsonText(const arrow::Field& field) {
  if (field.type()->id() != arrow::Type::STRING || field.metadata() == nullptr) return false;
  const auto kind = field.metadata()->Get(kTypeKey);
  return kind.ok() && *kind == kJsonTypeName;
}

}  // namespace millstream
