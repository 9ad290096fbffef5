// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/check.h"
#include "data/input.h"

namespace millstream {
namespace {

constexpr std::int64_t kIndexedEvery = 4096;

bool IsText(FileFormat format) {
  return format != FileFormat::kParquet && format != FileFormat::kArrowFile &&
         format != FileFormat::kArrowStream;
}

// Consecutive records of one file that take about the same space.
struct Stretch {
  std::int64_t end;  // the number of records up to its last one
  double record_bytes;
};

std::vector<Stretch> Stretches(const InputFile& file) {
  const auto records = static_cast<double>(file.num_records);
  const auto num_indexed =
      static_cast<std::size_t>((file.num_records + kIndexedEvery - 1) / kIndexedEvery);
  if (!IsText(file.format) || file.positions.size() < num_indexed + 1) {
    return {{file.num_records, static_cast<double>(file.size_bytes) / std::max(records, 1.0)}};
  }
  std::vector<Stretch> stretches;
  for (std::size_t i = 0; i < num_indexed; ++i) {
    const auto begin = static_cast<std::int64_t>(i) * kIndexedEvery;
    const std::int64_t end = std::min(begin + kIndexedEvery, file.num_records);
    const auto bytes = static_cast<double>(file.positions[i + 1] - file.positions[i]);
    stretches.push_back({end, bytes / static_cast<double>(end - begin)});
  }
  return stretches;
}

class Cutter {
 public:
  Cutter(std::int64_t max_rows, std::uint64_t max_bytes)
      : max_rows_(std::max<std::int64_t>(max_rows, 1)),
        max_bytes_(static_cast<double>(std::max<std::uint64_t>(max_bytes, 1))) {}

  // Adds records [first, end] of a file, closing splits as they fill.
  void Add(std::int32_t file, std::int64_t first, std::int64_t end, double record_bytes) {
    while (first <= end) {
      const double room = (max_bytes_ - bytes_) / std::max(record_bytes, 1e-9);
      if (open_.num_rows == max_rows_ || (open_.num_rows > 0 && room < 1)) {
        Close();
        continue;
      }
      std::int64_t take = std::min(end - first + 1, max_rows_ - open_.num_rows);
      if (room < static_cast<double>(take)) {
        take = std::max<std::int64_t>(static_cast<std::int64_t>(room), 1);
      }
      if (!open_.ranges.empty() && open_.ranges.back().file == file) {
        open_.ranges.back().num_records += take;
      } else {
        open_.ranges.push_back({file, first, take});
      }
      open_.num_rows += take;
      bytes_ += static_cast<double>(take) * record_bytes;
      first += take;
    }
  }

  std::vector<Split> Finish() {
    if (open_.num_rows > 0) Close();
    return std::move(splits_);
  }

 private:
  void Close() {
    open_.number = static_cast<std::int64_t>(splits_.size());
    splits_.push_back(std::move(open_));
    open_ = Split();
    bytes_ = 0;
  }

  const std::int64_t max_rows_;
  const double max_bytes_;
  Split open_;
  double bytes_ = 0;
  std::vector<Split> splits_;
};

}  // namespace

std::vector<Split> CutSplits(
    const Snapshot& snapshot, std::int64_t max_rows, std::uint64_t max_bytes
) {
  Cutter cutter(max_rows, max_bytes);
  for (std::size_t i = 0; i < snapshot.files.size(); ++i) {
    std::int64_t first = 1;
    for (const Stretch& stretch : Stretches(snapshot.files[i])) {
      cutter.Add(static_cast<std::int32_t>(i), first, stretch.end, stretch.record_bytes);
      first = stretch.end + 1;
    }
  }
  return cutter.Finish();
}

Split SliceOf(const Split& split, std::int64_t begin, std::int64_t end) {
  Split rows{split.number, {}, end - begin};
  std::int64_t first = 0;  // place of the range's first row
  for (const RecordRange& range : split.ranges) {
    const std::int64_t from = std::max(begin, first);
    const std::int64_t to = std::min(end, first + range.num_records);
    if (from < to)
      rows.ranges.push_back({range.file, range.first_record + from - first, to - from});
    first += range.num_records;
  }
  return rows;
}

RowId RowAt(const Split& split, std::int64_t place) {
  const Split row = SliceOf(split, place, place + 1);
  MS_CHECK(!row.ranges.empty());
  return {row.ranges.front().file, row.ranges.front().first_record};
}

}  // namespace millstream
