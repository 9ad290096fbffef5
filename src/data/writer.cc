// SPDX-License-Identifier: Apache-2.0
#include "data/writer.h"

#include <array>
#include <utility>

#include "arrow/type.h"
#include "data/format_files.h"
#include "data/json_value.h"

namespace millstream {
namespace {

struct FormatNames {
  OutputFormat format;
  std::string_view name;
  std::string_view suffix;
};
constexpr std::array<FormatNames, 5> kFormats{{
    {OutputFormat::kParquet, "parquet", ".parquet"},
    {OutputFormat::kJsonl, "jsonl", ".jsonl"},
    {OutputFormat::kCsv, "csv", ".csv"},
    {OutputFormat::kArrow, "arrow", ".arrow"},
    {OutputFormat::kOpenAiBatch, "openai-batch", ".jsonl"},
}};

}  // namespace

std::string_view OutputFormatName(OutputFormat format) {
  return kFormats[static_cast<std::size_t>(format)].name;
}

std::string_view OutputFormatSuffix(OutputFormat format) {
  return kFormats[static_cast<std::size_t>(format)].suffix;
}

Result<OutputFormat> OutputFormatFromName(std::string_view name) {
  for (const FormatNames& known : kFormats) {
    if (known.name == name) return known.format;
  }
  return Status::Invalid(
      "unknown output format \"",
      std::string(name),
      "\": use parquet, jsonl, csv, arrow or openai-batch"
  );
}

namespace {

// Text formats hold what JSON can.
Status CheckText(const arrow::Schema& schema, OutputFormat format) {
  for (const auto& field : schema.fields()) {
    if (HasJson(*field->type())) continue;
    return Status::Invalid(
        "column ",
        field->name(),
        " has type ",
        TypeName(*field->type()),
        ", which ",
        OutputFormatName(format),
        " cannot hold: leave it out, set another type, or choose format: arrow"
    );
  }
  return Status::OK();
}

}  // namespace

Result<std::unique_ptr<TableWriter>> MakeTableWriter(
    OutputFormat format,
    SchemaPtr schema,
    SinkPtr sink,
    const FileMetadata& metadata,
    const std::vector<std::string>& inputs
) {
  switch (format) {
    case OutputFormat::kParquet:
      return MakeParquetWriter(std::move(schema), std::move(sink), metadata);
    case OutputFormat::kJsonl:
      MS_RETURN_NOT_OK(CheckText(*schema, format));
      return MakeJsonlWriter(schema, std::move(sink));
    case OutputFormat::kCsv:
      MS_RETURN_NOT_OK(CheckText(*schema, format));
      return MakeCsvWriter(schema, std::move(sink));
    case OutputFormat::kArrow:
      return MakeArrowWriter(schema, std::move(sink), metadata);
    case OutputFormat::kOpenAiBatch:
      return MakeOpenAiBatchWriter(schema, std::move(sink), metadata, inputs);
  }
  return Status::Invalid("no such output format");
}

Result<BatchReaderPtr> OpenWritten(
    OutputFormat format,
    SourcePtr file,
    const std::string& name,
    SchemaPtr schema,
    const std::vector<std::string>& inputs,
    const std::string& job
) {
  switch (format) {
    case OutputFormat::kParquet:
      return OpenWrittenParquet(std::move(file), name, std::move(schema));
    case OutputFormat::kJsonl:
      return OpenWrittenJsonl(std::move(file), name, std::move(schema));
    case OutputFormat::kCsv:
      return OpenWrittenCsv(std::move(file), name, std::move(schema));
    case OutputFormat::kArrow:
      return OpenWrittenArrow(std::move(file), name, std::move(schema));
    case OutputFormat::kOpenAiBatch:
      return OpenWrittenOpenAiBatch(std::move(file), name, std::move(schema), inputs, job);
  }
  return Status::Invalid("no such output format");
}

}  // namespace millstream
