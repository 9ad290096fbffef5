// SPDX-License-Identifier: Apache-2.0
#include "data/snapshot.h"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <utility>

#include "arrow/type.h"
#include "base/utf8.h"
#include "data/csv_record.h"
#include "data/file_reader.h"
#include "data/inference.h"
#include "data/json_value.h"
#include "data/listing.h"
#include "data/plain_array.h"

namespace millstream {
namespace {

constexpr std::uint64_t kInferenceBytes = std::uint64_t{1} << 30;
constexpr std::int64_t kIndexedEvery = 4096;
constexpr std::size_t kColumnsMax = 10'000;
constexpr std::array<std::string_view, 3> kJobColumns{"_status", "_error", "_source"};

bool IsText(FileFormat format) {
  return format != FileFormat::kParquet && format != FileFormat::kArrowFile &&
         format != FileFormat::kArrowStream;
}

Status TooManyColumns(const InputFile& file) {
  return Status::Invalid(
      file.name,
      " has more than ",
      kColumnsMax,
      " columns: does each record have keys of its own? ",
      "Put such values below one key and declare it as json in `schema:`"
  );
}

// The part of a file whose records count for the types: all of it, or its start, middle and end.
class InferenceWindow {
 public:
  InferenceWindow(std::uint64_t file_bytes, std::uint64_t total_bytes, std::uint64_t budget_bytes)
      : all_(total_bytes <= budget_bytes), file_bytes_(file_bytes) {
    const double share = static_cast<double>(budget_bytes) /
                         static_cast<double>(std::max<std::uint64_t>(total_bytes, 1));
    third_ = static_cast<std::uint64_t>(static_cast<double>(file_bytes) * share / 3);
  }
  bool Contains(std::uint64_t place) const {
    const std::uint64_t middle = file_bytes_ / 2;
    return all_ || place <= third_ ||
           (place + third_ / 2 >= middle && place <= middle + third_ / 2) ||
           place + third_ >= file_bytes_;
  }

 private:
  const bool all_;
  const std::uint64_t file_bytes_;
  std::uint64_t third_;
};

// Counts the records of text files, notes where they are, and counts the values of their columns.
class TextIndexer {
 public:
  explicit TextIndexer(std::stop_token stop) : stop_(std::move(stop)) {}

  Status Index(InputFile& file, const InferenceWindow& window) {
    MS_ASSIGN_OR_RETURN(const Framing framing, FindFraming(file));
    if (file.format == FileFormat::kJson && framing == Framing::kJsonLines) {
      file.format = FileFormat::kJsonl;
    }
    MS_ASSIGN_OR_RETURN(auto source, OpenBytes(file, file.compression, 0, true));
    TextScanner scanner(std::move(source), framing, 0, 1);
    MS_RETURN_NOT_OK(ReadHeader(file, scanner));
    TextRecord record;
    for (;;) {
      MS_ASSIGN_OR_RETURN(const bool more, scanner.Next(record));
      if (!more) break;
      if (file.num_records % kIndexedEvery == 0) {
        if (stop_.stop_requested()) return Status::Cancelled("stopped while indexing the input");
        file.positions.push_back(record.offset);
        file.lines.push_back(record.line);
      }
      ++file.num_records;
      const bool plain = file.compression == Compression::kNone;
      if (window.Contains(plain ? record.offset : scanner.source().bytes_read())) {
        MS_RETURN_NOT_OK(Count(file, record));
      }
    }
    file.positions.push_back(scanner.offset());
    file.hash = scanner.source().hash();
    if (scanner.source().bytes_read() != file.size_bytes) {
      return Status::Invalid(file.name, " was changed while it was being read");
    }
    return Status::OK();
  }

  const ValueCounts& columns() const { return columns_; }

 private:
  Status ReadHeader(InputFile& file, TextScanner& scanner) {
    std::size_t guess = 0;
    if (file.format == FileFormat::kText) columns_.Field(kTextColumn, guess);
    if (file.format != FileFormat::kCsv && file.format != FileFormat::kTsv) return Status::OK();
    csv_.emplace(file.format == FileFormat::kCsv ? ',' : '\t');
    TextRecord record;
    MS_ASSIGN_OR_RETURN(const bool more, scanner.Next(record));
    if (!more) return Status::OK();
    const auto wrong = [&](const std::string& why) {
      return Status::Invalid("the header of ", file.name, " cannot be used: ", why);
    };
    if (record.too_large) return wrong("it is longer than 32 MiB");
    if (!IsValidUtf8(record.text)) return wrong("it is not valid UTF-8");
    const Status split = csv_->Split(record.text);
    if (!split.ok()) return wrong(split.message());
    if (csv_->cells().size() > kColumnsMax) return TooManyColumns(file);
    for (const CsvRecord::Cell& cell : csv_->cells()) {
      // Tools that write an index column leave its name empty.
      std::string name = cell.text.empty() ? "column_" + std::to_string(file.header.size() + 1)
                                           : std::string(cell.text);
      if (std::find(file.header.begin(), file.header.end(), name) != file.header.end()) {
        return wrong("two columns are named \"" + name + "\"");
      }
      columns_.Field(name, guess);
      file.header.push_back(std::move(name));
    }
    return Status::OK();
  }

  Status Count(const InputFile& file, const TextRecord& record) {
    if (record.too_large || record.unclosed || file.format == FileFormat::kText) {
      return Status::OK();
    }
    std::size_t guess = 0;
    if (csv_) {
      if (!csv_->Split(record.text).ok() || csv_->cells().size() != file.header.size()) {
        return Status::OK();
      }
      if (!IsValidUtf8(record.text)) return Status::OK();
      for (std::size_t i = 0; i < file.header.size(); ++i) {
        columns_.Field(file.header[i], guess)
            .AddCell(csv_->cells()[i].text, csv_->cells()[i].quoted);
      }
      return Status::OK();
    }
    if (!document_.ParseRow(record.text).ok() || document_.root().kind() != JsonKind::kObject) {
      return Status::OK();
    }
    return document_.root().ForEachMember([&](std::string_view name, const JsonNode& value) {
      columns_.Field(name, guess).AddJson(value);
      return columns_.fields.size() > kColumnsMax ? TooManyColumns(file) : Status::OK();
    });
  }

  const std::stop_token stop_;
  ValueCounts columns_;  // its fields are the columns
  std::optional<CsvRecord> csv_;
  JsonDocument document_;
};

const std::shared_ptr<arrow::DataType>* FindDeclared(
    const InputOptions& options, std::string_view name
) {
  for (const auto& [column, type] : options.schema) {
    if (column == name) return &type;
  }
  return nullptr;
}

std::shared_ptr<arrow::Field> MakeField(
    const std::string& name, const std::shared_ptr<arrow::DataType>& type
) {
  return type == nullptr ? JsonTextField(name) : arrow::field(name, type);
}

// The names of the columns that the rows have, out of those that the files have.
Result<std::vector<std::string>> ChooseColumns(
    const InputOptions& options, std::vector<std::string> names, bool is_job_output
) {
  const auto is_known = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const auto& [column, type] : options.schema) {
    if (!is_known(column)) names.push_back(column);
  }
  if (options.columns.empty()) {
    if (is_job_output) {
      std::erase_if(names, [](const std::string& name) {
        return std::find(kJobColumns.begin(), kJobColumns.end(), name) != kJobColumns.end();
      });
    }
    return names;
  }
  for (const std::string& column : options.columns) {
    if (is_known(column)) continue;
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
    return Status::Invalid(
        "`columns:` names \"", column, "\", which the input does not have (it has ", all, ")"
    );
  }
  return options.columns;
}

// Whether the columns are those that every job writes, by name; text formats have no types to
// compare.
bool HasJobColumns(const ValueCounts& counts) {
  const auto has = [&](std::string_view name) { return counts.FindField(name) != nullptr; };
  if (!std::all_of(kJobColumns.begin(), kJobColumns.end(), has)) return false;
  const ValueCounts& status = *counts.FindField(kJobColumns[0]);
  return status.strings == status.total();
}

Status TypeTextColumns(const InputOptions& options, const ValueCounts& counts, Snapshot& snapshot) {
  const std::vector<std::string>& found = counts.field_names.names();
  const FileFormat format = snapshot.files.front().format;
  const bool is_json = format == FileFormat::kJsonl || format == FileFormat::kJson;
  snapshot.is_job_output = options.drop_job_columns && HasJobColumns(counts);
  MS_ASSIGN_OR_RETURN(const auto names, ChooseColumns(options, found, snapshot.is_job_output));
  arrow::FieldVector fields;
  for (const std::string& name : names) {
    if (const auto* declared = FindDeclared(options, name)) {
      fields.push_back(MakeField(name, *declared));
      continue;
    }
    const ValueCounts& column = *counts.FindField(name);
    InferredType inferred = InferCsvType(column);
    if (is_json) {
      MS_ASSIGN_OR_RETURN(inferred, InferJsonType(column, name));
    } else if (format == FileFormat::kText) {
      inferred = {arrow::utf8(), 0};
    }
    if (inferred.num_misfits > 0) {
      snapshot.fits.push_back({name, column.total(), inferred.num_misfits});
    }
    fields.push_back(MakeField(name, inferred.type));
  }
  snapshot.schema = arrow::schema(std::move(fields));
  return Status::OK();
}

// Whether the columns are those that every job writes, by name and type.
bool HasJobColumns(const arrow::Schema& schema) {
  const auto is_struct_of = [&](std::string_view name, const std::vector<std::string>& children) {
    const auto field = schema.GetFieldByName(std::string(name));
    if (field == nullptr || field->type()->id() != arrow::Type::STRUCT) return false;
    const auto& fields = field->type()->fields();
    return std::equal(
        fields.begin(),
        fields.end(),
        children.begin(),
        children.end(),
        [](const auto& a, const auto& b) { return a->name() == b; }
    );
  };
  const auto status = schema.GetFieldByName(std::string(kJobColumns[0]));
  return status != nullptr && status->type()->id() == arrow::Type::STRING &&
         is_struct_of(kJobColumns[1], {"step", "code", "message"}) &&
         is_struct_of(kJobColumns[2], {"file", "record", "version"});
}

// The union of the files' columns by name. Numbers widen; other differences are errors.
Result<arrow::FieldVector> UniteColumns(
    const std::vector<InputFile>& files,
    const std::vector<std::shared_ptr<arrow::Schema>>& schemas,
    const InputOptions& options
) {
  NameIndex names;
  arrow::FieldVector fields;
  std::vector<const InputFile*> first_seen;
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::size_t guess = 0;
    for (const auto& field : schemas[i]->fields()) {
      if (schemas[i]->GetAllFieldIndices(field->name()).size() > 1) {
        return Status::Invalid(files[i].name, " has two columns named \"", field->name(), "\"");
      }
      const auto place = names.Find(field->name(), guess);
      if (!place) {
        guess = names.Add(field->name()) + 1;
        fields.push_back(field->WithNullable(true));
        first_seen.push_back(&files[i]);
        continue;
      }
      guess = *place + 1;
      if (FindDeclared(options, field->name()) != nullptr) continue;
      const auto wider = WiderType(fields[*place]->type(), field->type());
      if (wider == nullptr) {
        return Status::Invalid(
            "column \"",
            field->name(),
            "\" is ",
            TypeName(*fields[*place]->type()),
            " in ",
            first_seen[*place]->name,
            " and ",
            TypeName(*field->type()),
            " in ",
            files[i].name,
            "; say what it is in `schema:`"
        );
      }
      fields[*place] = fields[*place]->WithType(wider);
    }
  }
  return fields;
}

Status TypeTables(
    const InputOptions& options,
    const std::vector<std::shared_ptr<arrow::Schema>>& schemas,
    Snapshot& snapshot
) {
  MS_ASSIGN_OR_RETURN(
      const arrow::FieldVector found, UniteColumns(snapshot.files, schemas, options)
  );
  const arrow::Schema all(found);
  snapshot.is_job_output = options.drop_job_columns && HasJobColumns(all);
  std::vector<std::string> names;
  for (const auto& field : found) names.push_back(field->name());
  MS_ASSIGN_OR_RETURN(names, ChooseColumns(options, std::move(names), snapshot.is_job_output));
  arrow::FieldVector fields;
  for (const std::string& name : names) {
    const auto* declared = FindDeclared(options, name);
    fields.push_back(declared != nullptr ? MakeField(name, *declared) : all.GetFieldByName(name));
  }
  snapshot.schema = arrow::schema(std::move(fields));
  return Status::OK();
}

}  // namespace

Result<Snapshot> TakeSnapshot(
    const InputOptions& options, std::uint64_t inference_bytes, std::stop_token stop
) {
  Snapshot snapshot;
  MS_ASSIGN_OR_RETURN(snapshot.files, ListInput(options));
  std::uint64_t total_bytes = 0;
  for (const InputFile& file : snapshot.files) total_bytes += file.size_bytes;
  TextIndexer indexer(stop);
  std::vector<std::shared_ptr<arrow::Schema>> schemas;
  for (InputFile& file : snapshot.files) {
    if (stop.stop_requested()) return Status::Cancelled("stopped while indexing the input");
    if (IsText(file.format)) {
      MS_RETURN_NOT_OK(
          indexer.Index(file, InferenceWindow(file.size_bytes, total_bytes, inference_bytes))
      );
    } else {
      MS_ASSIGN_OR_RETURN(
          auto schema,
          file.format == FileFormat::kParquet ? IndexParquetFile(file) : IndexArrowFile(file)
      );
      schemas.push_back(std::move(schema));
    }
    snapshot.num_rows += file.num_records;
  }
  MS_RETURN_NOT_OK(
      schemas.empty() ? TypeTextColumns(options, indexer.columns(), snapshot)
                      : TypeTables(options, schemas, snapshot)
  );
  return snapshot;
}

Result<Snapshot> TakeSnapshot(const InputOptions& options, std::stop_token stop) {
  try {
    return TakeSnapshot(options, kInferenceBytes, std::move(stop));
  } catch (const std::bad_alloc&) {
    return Status::OutOfMemory("no memory to index the input");
  } catch (const std::exception& error) {
    return Status::UnknownError("cannot index the input: ", error.what());
  }
}

Status CheckUnchanged(const Snapshot& snapshot) {
  for (const InputFile& pinned : snapshot.files) MS_RETURN_NOT_OK(CheckFile(pinned));
  return Status::OK();
}

}  // namespace millstream
