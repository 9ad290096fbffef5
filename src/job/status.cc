// SPDX-License-Identifier: Apache-2.0
#include "job/status.h"

#include <utility>

#include "arrow/array/array_binary.h"
#include "arrow/array/array_nested.h"
#include "arrow/array/array_primitive.h"
#include "base/parse_json.h"
#include "fmt/format.h"
#include "job/results.h"
#include "pipeline/row_batch.h"

namespace millstream {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::size_t kSamples = 3;

// Reads the failed rows of all parts that stand, batch by batch.
Status ForFailedRows(
    const StandingOutput& output,
    const std::map<std::int64_t, CommittedPart>& parts,
    const std::function<Status(const arrow::RecordBatch&)>& use
) {
  const OutputLayout& layout = output.ledger->layout();
  for (const Split& split : output.plan.splits) {
    const auto part = parts.find(split.number);
    if (part == parts.end() || part->second.counts.error == 0) continue;
    const bool apart = part->second.errors.has_value();
    if (!apart && !output.keep_errors) continue;
    const std::string path = apart ? layout.ErrorsPath(split.number, part->second.errors->hash)
                                   : layout.PartPath(split.number);
    MS_RETURN_NOT_OK(ReadRows(
        output,
        split,
        path,
        [&](const auto& batch, const auto& places) -> Status {
          std::vector<std::int64_t> failed;
          for (std::size_t row = 0; row < places.size(); ++row) {
            if (places[row].status == "error") failed.push_back(static_cast<std::int64_t>(row));
          }
          if (failed.empty()) return Status::OK();
          MS_ASSIGN_OR_RETURN(const auto rows, TakeColumns(batch, failed));
          return use(*rows);
        }
    ));
  }
  return Status::OK();
}

void AddFailures(const arrow::RecordBatch& rows, std::map<std::string, ErrorGroup>& errors) {
  const int columns = rows.num_columns();
  const auto& error = static_cast<const arrow::StructArray&>(*rows.column(columns - 2));
  const auto& source = static_cast<const arrow::StructArray&>(*rows.column(columns - 1));
  const auto text = [](const arrow::StructArray& from, int field, std::int64_t row) {
    return static_cast<const arrow::StringArray&>(*from.field(field)).GetString(row);
  };
  for (std::int64_t row = 0; row < rows.num_rows(); ++row) {
    ErrorGroup& group = errors[text(error, 1, row)];
    ++group.count;
    if (group.samples.size() == kSamples) continue;
    group.samples.push_back(fmt::format(
        "{}:{} {}: {}",
        text(source, 0, row),
        static_cast<const arrow::Int64Array&>(*source.field(1)).Value(row),
        text(error, 0, row),
        text(error, 2, row)
    ));
  }
}

// What the journals tell of the drivers.
void AddHistory(const JournalHistory& history, JobStatus& status) {
  double begun_at = 0;
  std::int64_t rows = 0;  // of the last driver
  for (const JournalEntry& entry : history.entries) {
    const double at = entry.body.value("at", 0.0);
    if (status.first_at == 0) status.first_at = at;
    status.last_at = at;
    switch (entry.type) {
      case EntryType::kOpen:
        ++status.drivers;
        begun_at = at;
        rows = 0;
        status.last_end = "it died, or was killed";
        break;
      case EntryType::kPart:
        for (const Json& part : entry.body.value("parts", Json::array())) {
          rows += part.value("ok", std::int64_t{0}) + part.value("error", std::int64_t{0}) +
                  part.value("skipped", std::int64_t{0});
        }
        break;
      case EntryType::kDrain:
        status.last_end = "it was stopped on request";
        break;
      case EntryType::kStop:
        status.last_end = "the disk was full: " + entry.body.value("why", "");
        break;
      case EntryType::kBreaker:
        status.last_end = entry.body.value("why", "the circuit breaker stopped it");
        break;
      case EntryType::kDone:
        status.last_end = "it completed the job";
        break;
      default:
        break;
    }
  }
  if (status.last_at > begun_at) {
    status.rows_per_second = static_cast<double>(rows) / (status.last_at - begun_at);
  }
}

}  // namespace

std::string HolderInWords(const std::string& holder) {
  const Json json = ParseJson<Json>(holder);
  if (!json.is_object()) return "another process";
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found == json.end()  ? std::string("?")
           : found->is_string() ? found->get<std::string>()
                                : found->dump();
  };
  return fmt::format("process {} on {}, since {}", text("pid"), text("host"), text("since"));
}

Result<JobStatus> StatusOf(Storage& storage, const std::string& path) {
  MS_ASSIGN_OR_RETURN(const StandingOutput output, OpenOutput(storage, path));
  const Ledger& ledger = *output.ledger;
  JobStatus status;
  status.output = ledger.layout().output;
  status.name = ledger.job().value("name", "");
  MS_ASSIGN_OR_RETURN(const auto parts, ledger.Parts());
  status.splits = static_cast<std::int64_t>(output.plan.splits.size());
  status.parts = static_cast<std::int64_t>(parts.size());
  for (const Split& split : output.plan.splits) status.rows_total += split.num_rows;
  for (const auto& [split, part] : parts) status.rows += part.counts;
  MS_ASSIGN_OR_RETURN(const auto success, ledger.Success());
  MS_ASSIGN_OR_RETURN(const bool stands, ledger.OutputStands());
  status.complete = success.has_value() && stands && status.parts == status.splits;
  MS_ASSIGN_OR_RETURN(const auto holder, storage.LockHolder(Ledger::LockPath(ledger.layout())));
  if (holder) status.holder = HolderInWords(*holder);
  MS_ASSIGN_OR_RETURN(const auto logged, ledger.LoggedSplits());
  for (const std::int64_t split : logged) {
    if (parts.contains(split)) continue;
    MS_ASSIGN_OR_RETURN(const LoadedRows rows, ledger.LoadRows(split));
    status.rows_in_log += RowsIn(rows);
  }
  AddHistory(ledger.history(), status);
  MS_RETURN_NOT_OK(ForFailedRows(output, parts, [&](const arrow::RecordBatch& rows) {
    AddFailures(rows, status.errors);
    return Status::OK();
  }));
  return status;
}

Result<std::int64_t> WriteErrors(
    Storage& storage, const std::string& path, std::shared_ptr<arrow::io::OutputStream> sink
) {
  MS_ASSIGN_OR_RETURN(const StandingOutput output, OpenOutput(storage, path));
  MS_ASSIGN_OR_RETURN(const auto parts, output.ledger->Parts());
  MS_ASSIGN_OR_RETURN(
      auto writer, MakeTableWriter(OutputFormat::kJsonl, output.plan.output, std::move(sink), {})
  );
  std::int64_t count = 0;
  MS_RETURN_NOT_OK(ForFailedRows(output, parts, [&](const arrow::RecordBatch& rows) {
    count += rows.num_rows();
    return writer->Write(rows);
  }));
  MS_RETURN_NOT_OK(writer->Close());
  return count;
}

}  // namespace millstream
