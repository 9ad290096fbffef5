// SPDX-License-Identifier: Apache-2.0
#include "job/verify.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_nested.h"
#include "arrow/array/array_primitive.h"
#include "data/digest.h"
#include "data/writer.h"
#include "fmt/format.h"
#include "job/plan.h"

namespace millstream {
namespace {

// Walks a split's records in order, to place each row of its part.
class SplitWalk {
 public:
  SplitWalk(const Split& split, const Snapshot& snapshot) : split_(split), snapshot_(snapshot) {}

  // Whether (file, record) comes after the last row that was found, within the split.
  bool Find(std::string_view file, std::int64_t record) {
    for (; range_ < split_.ranges.size(); ++range_) {
      const RecordRange& range = split_.ranges[range_];
      const bool here = snapshot_.files[static_cast<std::size_t>(range.file)].name == file;
      if (here && record >= range.first_record && record < range.first_record + range.num_records) {
        if (found_ && last_range_ == range_ && record <= last_record_) return false;
        found_ = true;
        last_range_ = range_;
        last_record_ = record;
        return true;
      }
    }
    return false;
  }

 private:
  const Split& split_;
  const Snapshot& snapshot_;
  std::size_t range_ = 0, last_range_ = 0;
  std::int64_t last_record_ = 0;
  bool found_ = false;
};

Status CountBatch(
    const arrow::RecordBatch& batch, const std::string& path, SplitWalk& walk, RowCounts& counts
) {
  const int columns = batch.num_columns();
  const auto& status = static_cast<const arrow::StringArray&>(*batch.column(columns - 3));
  const auto& source = static_cast<const arrow::StructArray&>(*batch.column(columns - 1));
  const auto& file = static_cast<const arrow::StringArray&>(*source.field(0));
  const auto& record = static_cast<const arrow::Int64Array&>(*source.field(1));
  for (std::int64_t row = 0; row < batch.num_rows(); ++row) {
    if (!walk.Find(file.GetView(row), record.Value(row))) {
      return Conflict(fmt::format(
          "{}: row of {} record {} is not in its split, or not once and in order",
          path,
          file.GetView(row),
          record.Value(row)
      ));
    }
    const std::string_view name = status.GetView(row);
    if (name == "ok") {
      ++counts.ok;
    } else if (name == "error") {
      ++counts.error;
    } else if (name == "skipped") {
      ++counts.skipped;
    } else {
      return Conflict(fmt::format(
          "{}: _status '{}' of {} record {}", path, name, file.GetView(row), record.Value(row)
      ));
    }
  }
  return Status::OK();
}

nlohmann::ordered_json OutputSpec(const Ledger& ledger) {
  const auto spec = ledger.job().find("spec");
  if (spec == ledger.job().end() || !spec->contains("output")) return {};
  return (*spec)["output"];
}

// What a file of these committed counts shows: nothing of a status that the output leaves out.
RowCounts Shown(const Ledger& ledger, const RowCounts& committed) {
  const nlohmann::ordered_json output = OutputSpec(ledger);
  const auto rows = output.find("rows");
  const auto shown = [&](std::string_view status, std::int64_t count) {
    const bool shows = rows == output.end()
                           ? status != "skipped"
                           : std::find(rows->begin(), rows->end(), status) != rows->end();
    return shows ? count : 0;
  };
  return {
      shown("ok", committed.ok),
      shown("error", committed.error),
      shown("skipped", committed.skipped)
  };
}

Status Compare(const RowCounts& seen, const RowCounts& expected, const std::string& path) {
  if (seen == expected) return Status::OK();
  return Conflict(fmt::format(
      "{} holds {} ok, {} error, {} skipped rows; committed were {}, {}, {}",
      path,
      seen.ok,
      seen.error,
      seen.skipped,
      expected.ok,
      expected.error,
      expected.skipped
  ));
}

Status ReadPart(
    OutputFormat format,
    const std::string& path,
    const Plan& plan,
    const Split& split,
    RowDigest* digest,
    RowCounts& seen
) {
  MS_ASSIGN_OR_RETURN(auto reader, OpenWritten(format, path, plan.output));
  SplitWalk walk(split, plan.snapshot);
  std::shared_ptr<arrow::RecordBatch> batch;
  while (true) {
    MS_RETURN_NOT_OK(reader->ReadNext(&batch));
    if (!batch) return Status::OK();
    MS_RETURN_NOT_OK(CountBatch(*batch, path, walk, seen));
    if (digest != nullptr) MS_RETURN_NOT_OK(digest->Add(*batch));
  }
}

// As the spec states it, else as the file's suffix does.
Result<OutputFormat> FormatOfJob(const Ledger& ledger, const std::string& suffix) {
  const nlohmann::ordered_json output = OutputSpec(ledger);
  if (output.contains("format") && output["format"].is_string()) {
    return OutputFormatFromName(output["format"].get<std::string>());
  }
  const auto of_suffix = OutputFormatFromName(suffix.empty() ? suffix : suffix.substr(1));
  return of_suffix.ok() ? of_suffix : OutputFormatFromName("parquet");
}

// The single file, which holds the rows of all parts.
Status VerifyFile(
    const Ledger& ledger,
    OutputFormat format,
    const Plan& plan,
    const RowCounts& committed,
    RowDigest* digest
) {
  const std::string& path = ledger.layout().output;
  MS_ASSIGN_OR_RETURN(const bool stands, ledger.OutputStands());
  if (!stands) return Conflict(path + " is gone: run the job again to write it from its parts");
  Split all;
  for (const Split& split : plan.splits) {
    all.ranges.insert(all.ranges.end(), split.ranges.begin(), split.ranges.end());
  }
  RowCounts seen;
  MS_RETURN_NOT_OK(ReadPart(format, path, plan, all, digest, seen));
  return Compare(seen, Shown(ledger, committed), path);
}

// The manifest says what was counted here.
Status CheckSuccess(
    const Ledger& ledger, const nlohmann::ordered_json& success, const Verification& found
) {
  const auto is = [&](const char* key, std::int64_t value) {
    const auto entry = success.find(key);
    return entry != success.end() && entry->is_number_integer() && *entry == value;
  };
  // Without all parts it says what will be, once they are made again.
  const bool same =
      success.is_object() &&
      (!found.complete || (is("rows", found.counts.total()) && is("ok", found.counts.ok) &&
                           is("error", found.counts.error) && is("skipped", found.counts.skipped) &&
                           is("parts", found.parts)));
  if (same) return Status::OK();
  return Conflict(
      ledger.layout().state + "/success.json does not say what the parts hold: remove it and run " +
      "the job again to write it anew"
  );
}

}  // namespace

Result<Verification> VerifyOutput(Storage& storage, const std::string& output, bool digest) {
  const std::string path = std::filesystem::absolute(output).lexically_normal().string();
  std::string suffix = std::filesystem::path(path).extension().string();
  MS_ASSIGN_OR_RETURN(
      std::unique_ptr<Ledger> ledger,
      Ledger::Load(storage, OutputLayout::Of(path, suffix.empty() ? ".parquet" : suffix))
  );
  if (!ledger) {
    return Status::Invalid(
        path, " is no output of Millstream: ", path, ".millstream/job.json is missing"
    );
  }
  MS_ASSIGN_OR_RETURN(const OutputFormat format, FormatOfJob(*ledger, suffix));
  MS_ASSIGN_OR_RETURN(
      ledger, Ledger::Load(storage, OutputLayout::Of(path, std::string(OutputFormatSuffix(format))))
  );
  MS_ASSIGN_OR_RETURN(const Plan plan, PlanFromJson(ledger->plan()));
  MS_ASSIGN_OR_RETURN(const auto parts, ledger->Parts());
  MS_ASSIGN_OR_RETURN(const auto success, ledger->Success());
  const bool is_one_file = ledger->layout().is_single_file && success.has_value();
  RowDigest rows(plan.output);
  Verification result;
  for (const Split& split : plan.splits) {
    const auto part = parts.find(split.number);
    if (part == parts.end()) {
      result.rows_missing += split.num_rows;
      continue;
    }
    const std::string part_path = ledger->layout().PartPath(split.number);
    MS_RETURN_NOT_OK(ledger->CheckPart(split.number, part->second));
    if (!is_one_file) {
      RowCounts seen;
      MS_RETURN_NOT_OK(ReadPart(format, part_path, plan, split, digest ? &rows : nullptr, seen));
      MS_RETURN_NOT_OK(Compare(seen, Shown(*ledger, part->second.counts), part_path));
    }
    if (part->second.counts.total() != split.num_rows) {
      return Conflict(fmt::format(
          "{}: {} rows are committed, its split has {}",
          part_path,
          part->second.counts.total(),
          split.num_rows
      ));
    }
    result.counts += part->second.counts;
    ++result.parts;
  }
  for (const auto& [split, part] : parts) {
    if (split >= static_cast<std::int64_t>(plan.splits.size())) {
      return Conflict(ledger->layout().PartPath(split) + " is of no split of the plan");
    }
  }
  result.complete = result.rows_missing == 0;
  if (is_one_file) {
    MS_RETURN_NOT_OK(VerifyFile(*ledger, format, plan, result.counts, digest ? &rows : nullptr));
  }
  if (success) MS_RETURN_NOT_OK(CheckSuccess(*ledger, *success, result));
  if (digest) result.digest = rows.Hex();
  return result;
}

}  // namespace millstream
