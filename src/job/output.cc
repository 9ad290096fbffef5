// SPDX-License-Identifier: Apache-2.0
#include "job/output.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_nested.h"
#include "arrow/array/array_primitive.h"
#include "fmt/format.h"
#include "storage/path.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;

// Walks a split's records in order, to place each row of its part.
class SplitWalk {
 public:
  SplitWalk(const Split& split, const Snapshot& snapshot) : split_(split), snapshot_(snapshot) {}

  // The row's place in the split, if it comes after the last one that was found.
  std::optional<std::int64_t> Find(std::string_view file, std::int64_t record) {
    for (; range_ < split_.ranges.size(); ++range_) {
      const RecordRange& range = split_.ranges[range_];
      const bool here = snapshot_.files[static_cast<std::size_t>(range.file)].name == file;
      if (here && record >= range.first_record && record < range.first_record + range.num_records) {
        const std::int64_t index = before_ + record - range.first_record;
        if (index <= last_) return std::nullopt;
        last_ = index;
        return index;
      }
      before_ += range.num_records;
    }
    return std::nullopt;
  }

 private:
  const Split& split_;
  const Snapshot& snapshot_;
  std::size_t range_ = 0;
  std::int64_t before_ = 0;  // rows of the ranges before
  std::int64_t last_ = -1;
};

// As the spec states it, else as the file's suffix does.
Result<OutputFormat> FormatOf(const Json& output, const std::string& suffix) {
  if (output.contains("format") && output["format"].is_string()) {
    return OutputFormatFromName(output["format"].get<std::string>());
  }
  const auto of_suffix = OutputFormatFromName(suffix.empty() ? suffix : suffix.substr(1));
  return of_suffix.ok() ? of_suffix : OutputFormatFromName("parquet");
}

// Where the failed rows' own file stands, if the spec wants one.
std::string ErrorsFileOf(
    Storage& storage, const Ledger& ledger, const Json& output, const OutputLayout& layout
) {
  if (!output.contains("errors") || !output["errors"].is_string()) return "";
  const Json source = ledger.current_spec().value("file", Json::object());
  const std::string job_file = source.value("path", "");
  const std::string errors = CleanPath(ParentOf(job_file), output["errors"].get<std::string>());
  const std::string aside = OutputLayout::ErrorsAside(errors, layout);
  return IsNotFound(storage.Open(aside).status()) ? errors : aside;
}

}  // namespace

Result<StandingOutput> OpenOutput(Storage& storage, const std::string& given) {
  const std::string folder = std::filesystem::current_path().string();
  const std::string suffix = std::filesystem::path(given).extension().string();
  MS_ASSIGN_OR_RETURN(
      const OutputLayout guess, OutputLayoutAt(folder, given, suffix.empty() ? ".parquet" : suffix)
  );
  StandingOutput output;
  output.storage = &storage;
  MS_ASSIGN_OR_RETURN(output.ledger, Ledger::Load(storage, guess));
  if (!output.ledger) {
    return Status::Invalid(
        guess.output, " is no output of Millstream: ", guess.state, "/job.json is missing"
    );
  }
  const Json spec = output.ledger->job().value("spec", Json::object());
  const Json written = spec.value("output", Json::object());
  MS_ASSIGN_OR_RETURN(output.format, FormatOf(written, suffix));
  OutputLayout layout =
      OutputLayout::Of(guess.output, std::string(OutputFormatSuffix(output.format)));
  layout.errors = ErrorsFileOf(storage, *output.ledger, written, layout);
  MS_ASSIGN_OR_RETURN(output.ledger, Ledger::Load(storage, layout));
  MS_ASSIGN_OR_RETURN(output.plan, PlanOf(*output.ledger));
  if (written.contains("errors")) output.keep_errors = false;
  if (const auto rows = written.find("rows"); rows != written.end()) {
    const auto keeps = [&](std::string_view status) {
      return std::find(rows->begin(), rows->end(), status) != rows->end();
    };
    output.keep_ok = keeps("ok");
    output.keep_errors = keeps("error");
    output.keep_skipped = keeps("skipped");
  }
  return output;
}

Status ReadRows(
    const StandingOutput& output, const Split& split, const std::string& path, const OnRows& rows
) {
  MS_ASSIGN_OR_RETURN(auto part, output.storage->Open(path));
  MS_ASSIGN_OR_RETURN(
      auto reader,
      OpenWritten(
          output.format,
          std::move(part),
          path,
          output.plan.output,
          FileNames(output.plan.snapshot),
          output.ledger->id()
      )
  );
  SplitWalk walk(split, output.plan.snapshot);
  std::shared_ptr<arrow::RecordBatch> batch;
  while (true) {
    MS_RETURN_NOT_OK(reader->ReadNext(&batch));
    if (!batch) return Status::OK();
    const int columns = batch->num_columns();
    const auto& status = static_cast<const arrow::StringArray&>(*batch->column(columns - 3));
    const auto& source = static_cast<const arrow::StructArray&>(*batch->column(columns - 1));
    const auto& file = static_cast<const arrow::StringArray&>(*source.field(0));
    const auto& record = static_cast<const arrow::Int64Array&>(*source.field(1));
    std::vector<PlacedRow> places;
    places.reserve(static_cast<std::size_t>(batch->num_rows()));
    for (std::int64_t row = 0; row < batch->num_rows(); ++row) {
      const std::optional<std::int64_t> index = walk.Find(file.GetView(row), record.Value(row));
      if (!index) {
        return Conflict(fmt::format(
            "{}: row of {} record {} is not in its split, or not once and in order",
            path,
            file.GetView(row),
            record.Value(row)
        ));
      }
      places.push_back({*index, status.GetView(row)});
    }
    MS_RETURN_NOT_OK(rows(batch, places));
  }
}

}  // namespace millstream
