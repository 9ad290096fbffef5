// SPDX-License-Identifier: Apache-2.0
#include "job/custom_ids.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "arrow/array/array_binary.h"
#include "arrow/type.h"
#include "data/reader.h"
#include "fmt/format.h"

namespace millstream {
namespace {

constexpr const char* kColumn = "custom_id";
constexpr std::int64_t kBatchRows = 4096;
constexpr std::size_t kShownBytes = 80;

// Calls `visit(file, record, id)` for each row that has an id, until it returns false.
Status ForEachId(
    const Snapshot& snapshot,
    const InputOptions& input,
    const std::vector<Split>& splits,
    const std::stop_token& stop,
    const std::function<bool(std::int32_t, std::int64_t, std::string_view)>& visit
) {
  SplitReader reader(snapshot, input, {kColumn}, kBatchRows);
  for (const Split& split : splits) {
    MS_RETURN_NOT_OK(reader.Open(split));
    while (true) {
      if (stop.stop_requested()) return Status::Cancelled("stopped while reading the input");
      MS_ASSIGN_OR_RETURN(const auto batch, reader.Next());
      if (!batch) break;
      const auto& ids = static_cast<const arrow::StringArray&>(*batch->columns->column(0));
      for (std::int64_t row = 0; row < ids.length(); ++row) {
        if (ids.IsNull(row)) continue;
        if (!visit(batch->file, batch->first_record + row, ids.GetView(row))) return Status::OK();
      }
    }
  }
  return Status::OK();
}

std::uint64_t HashOfId(std::string_view id) {
  return std::hash<std::string_view>()(id);
}

std::string Shown(std::string_view id) {
  if (id.size() <= kShownBytes) return std::string(id);
  std::size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(id[end]) & 0xC0U) == 0x80U) --end;
  return std::string(id.substr(0, end)) + "...";
}

}  // namespace

Result<std::string> DoubledCustomIds(
    const Snapshot& snapshot,
    const InputOptions& input,
    const std::vector<Split>& splits,
    std::int64_t most_rows,
    std::stop_token stop
) {
  const auto field = snapshot.schema->GetFieldByName(kColumn);
  if (field == nullptr || field->type()->id() != arrow::Type::STRING) return std::string();
  std::vector<std::uint64_t> hashes;
  bool has_more = false;
  MS_RETURN_NOT_OK(ForEachId(
      snapshot,
      input,
      splits,
      stop,
      [&](std::int32_t, std::int64_t, std::string_view id) {
        has_more = static_cast<std::int64_t>(hashes.size()) == most_rows;
        if (!has_more) hashes.push_back(HashOfId(id));
        return !has_more;
      }
  ));
  std::sort(hashes.begin(), hashes.end());
  std::int64_t doubled = 0;
  std::uint64_t example = 0;
  for (std::size_t i = 1; i < hashes.size(); ++i) {
    const bool is_second = hashes[i] == hashes[i - 1] && (i == 1 || hashes[i] != hashes[i - 2]);
    if (is_second) example = hashes[i];
    doubled += is_second ? 1 : 0;
  }
  if (doubled == 0) return std::string();
  std::string id;
  std::vector<std::string> places;
  MS_RETURN_NOT_OK(ForEachId(
      snapshot,
      input,
      splits,
      stop,
      [&](std::int32_t file, std::int64_t record, std::string_view at) {
        if (HashOfId(at) != example) return true;
        id = Shown(at);
        places.push_back(
            fmt::format("{}:{}", snapshot.files[static_cast<std::size_t>(file)].name, record)
        );
        return places.size() < 2;
      }
  ));
  return fmt::format(
      "{} custom_id{} more than once, such as \"{}\" at {} and {}: every line is answered{}",
      doubled,
      doubled == 1 ? " stands" : "s stand",
      id,
      places.front(),
      places.back(),
      has_more ? fmt::format("; only the first {} lines were looked at", most_rows) : ""
  );
}

}  // namespace millstream
