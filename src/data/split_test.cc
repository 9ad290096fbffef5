// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "data/input.h"

namespace millstream {
namespace {

// A text file of `num_records` records of `record_bytes` each.
InputFile TextOf(std::int64_t num_records, std::uint64_t record_bytes) {
  InputFile file;
  file.num_records = num_records;
  file.size_bytes = static_cast<std::uint64_t>(num_records) * record_bytes;
  for (std::int64_t i = 0; i < num_records; i += 4096) {
    file.positions.push_back(static_cast<std::uint64_t>(i) * record_bytes);
    file.lines.push_back(static_cast<std::uint64_t>(i) + 1);
  }
  file.positions.push_back(file.size_bytes);
  return file;
}

TEST(SplitTest, SpansSmallFilesAndDividesLargeOnes) {
  Snapshot snapshot;
  snapshot.files = {TextOf(3, 10), TextOf(0, 10), TextOf(4, 10), TextOf(9, 10)};
  const auto splits = CutSplits(snapshot, 5, 1 << 20);
  ASSERT_EQ(splits.size(), 4u);
  EXPECT_EQ(splits[0].ranges.size(), 2u);
  EXPECT_EQ(splits[0].ranges[1].file, 2);
  EXPECT_EQ(splits[0].ranges[1].num_records, 2);
  EXPECT_EQ(splits[1].ranges[0].first_record, 3);
  EXPECT_EQ(splits[3].num_rows, 1);
}

TEST(SplitTest, PlacesInASplitAreRowsOfItsFiles) {
  const Split split{5, {{0, 10, 3}, {2, 1, 1}, {3, 7, 4}}, 8};
  const std::vector<RowId> rows{{0, 10}, {0, 11}, {0, 12}, {2, 1}, {3, 7}, {3, 8}, {3, 9}, {3, 10}};
  for (std::int64_t begin = 0; begin < 8; ++begin) {
    EXPECT_EQ(RowAt(split, begin), rows[static_cast<std::size_t>(begin)]);
    for (std::int64_t end = begin; end <= 8; ++end) {
      const Split slice = SliceOf(split, begin, end);
      EXPECT_EQ(slice.number, 5);
      EXPECT_EQ(slice.num_rows, end - begin);
      std::vector<RowId> found;
      for (const RecordRange& range : slice.ranges) {
        EXPECT_GT(range.num_records, 0);
        for (std::int64_t i = 0; i < range.num_records; ++i) {
          found.push_back({range.file, range.first_record + i});
        }
      }
      EXPECT_EQ(found, std::vector<RowId>(rows.begin() + begin, rows.begin() + end));
    }
  }
}

TEST(SplitTest, LargeRecordsMakeSmallSplits) {
  Snapshot snapshot;
  snapshot.files = {TextOf(10, 1000), TextOf(5, 10)};
  const auto splits = CutSplits(snapshot, 4096, 2500);
  ASSERT_EQ(splits.size(), 5u);
  EXPECT_EQ(splits[0].num_rows, 2);
  EXPECT_EQ(splits[4].num_rows, 7);  // two large records, then the small ones
}

TEST(SplitTest, EveryRowIsInOneSplitInOrder) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    Snapshot snapshot;
    const auto up_to = [&](std::int64_t limit) {
      return static_cast<std::int64_t>(random()) % limit;
    };
    for (int i = 0; i < 5; ++i) {
      snapshot.files.push_back(TextOf(up_to(9000), 1 + random() % 2000));
    }
    if (round % 2 == 0) snapshot.files[2].format = FileFormat::kParquet;
    const std::int64_t max_rows = 1 + up_to(5000);
    const std::uint64_t max_bytes = 1 + random() % (1 << 22);
    std::int64_t number = 0;
    std::size_t file = 0;
    std::int64_t next = 1;
    for (const Split& split : CutSplits(snapshot, max_rows, max_bytes)) {
      EXPECT_EQ(split.number, number++);
      EXPECT_LE(split.num_rows, max_rows);
      std::int64_t num_rows = 0;
      for (const RecordRange& range : split.ranges) {
        while (next > snapshot.files[file].num_records) {
          ++file;
          next = 1;
        }
        ASSERT_EQ(range.file, static_cast<std::int32_t>(file));
        ASSERT_EQ(range.first_record, next);
        ASSERT_GT(range.num_records, 0);
        next += range.num_records;
        num_rows += range.num_records;
      }
      EXPECT_EQ(num_rows, split.num_rows);
    }
    while (file < 5 && next > snapshot.files[file].num_records) {
      ++file;
      next = 1;
    }
    EXPECT_EQ(file, 5u);
  }
}

TEST(SplitTest, NoRowsMakeNoSplits) {
  Snapshot snapshot;
  EXPECT_TRUE(CutSplits(snapshot, 10, 10).empty());
  snapshot.files = {TextOf(0, 1)};
  EXPECT_TRUE(CutSplits(snapshot, 10, 10).empty());
}

}  // namespace
}  // namespace millstream
