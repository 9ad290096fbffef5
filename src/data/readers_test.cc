// SPDX-License-Identifier: Apache-2.0
// The readers as a whole: snapshot, splits and rows, on small files written by the tests.

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "arrow/record_batch.h"
#include "data/reader.h"
#include "data/readers_testing.h"

namespace millstream {
namespace {

using Lines = std::vector<std::string>;

TEST(ReadersTest, JsonLinesBecomeTypedRows) {
  const TestFolder folder;
  folder.Write(
      "a.jsonl",
      "{\"i\":1,\"d\":1,\"s\":\"x\",\"b\":true,\"n\":null,\"l\":[1,2],\"o\":{\"k\":\"v\"}}\n\n"
      "{\"i\":-2,\"d\":2.5,\"s\":\"\",\"extra\":7}\r\n"
  );
  EXPECT_EQ(
      ReadAll(folder.Options({"a.jsonl"})),
      (Lines{
          R"(1 {"i":1,"d":1.0,"s":"x","b":true,"n":null,"l":[1,2],"o":{"k":"v"},"extra":null})",
          R"(2 {"i":-2,"d":2.5,"s":"","b":null,"n":null,"l":null,"o":null,"extra":7})"
      })
  );
}

TEST(ReadersTest, JsonArraysAreReadItemByItem) {
  const TestFolder folder;
  folder.Write(
      "a.json", "\xEF\xBB\xBF [ {\"a\": \"],[{\\\"\"},\n {\"a\": \"y\"\n}, {\"a\": }, 7]\n"
  );
  EXPECT_EQ(
      ReadAll(folder.Options({"a.json"})),
      (Lines{
          R"(1 {"a":"],[{\""})",
          R"(2 {"a":"y"})",
          "3 bad_json: line 3: the record is not valid JSON: Invalid value (byte 7)",
          "4 bad_json: line 3: the record is no JSON object"
      })
  );
}

TEST(ReadersTest, CsvCellsAreTypedAndQuotesKept) {
  const TestFolder folder;
  folder.Write(
      "a.csv",
      "id,name,score,ok\r\n1,\"a, \"\"b\"\"\nc\",1.5,true\r\n2,,2,\r\n3,\"\",-1e3,False\r\n4,x\r\n"
  );
  EXPECT_EQ(
      ReadAll(folder.Options({"a.csv"})),
      (Lines{
          R"(1 {"id":1,"name":"a, \"b\"\nc","score":1.5,"ok":true})",
          R"(2 {"id":2,"name":null,"score":2.0,"ok":null})",
          R"(3 {"id":3,"name":"","score":-1000.0,"ok":false})",
          "4 bad_csv: line 6: the record has 2 cells and the header 4"
      })
  );
}

TEST(ReadersTest, TextFilesHaveOneColumn) {
  const TestFolder folder;
  folder.Write("a.txt", "one\r\n\n  two\nbad \xFF\nlast");
  EXPECT_EQ(
      ReadAll(folder.Options({"a.txt"})),
      (Lines{
          R"(1 {"text":"one"})",
          R"(2 {"text":"  two"})",
          "3 bad_utf8: line 4: the record is not valid UTF-8",
          R"(4 {"text":"last"})"
      })
  );
}

TEST(ReadersTest, CompressedTextReadsAsPlainText) {
  const TestFolder folder;
  const std::string text = "a\tb\n1\tx\n2\ty\n";
  folder.Write("plain.tsv", text);
  folder.Write("a.tsv.gz", Gzip(text) + Gzip("3\tz\n"));
  folder.Write("b.tsv.zst", Zstd(text) + Zstd("3\tz\n"));
  const Lines rows{R"(1 {"a":1,"b":"x"})", R"(2 {"a":2,"b":"y"})"};
  EXPECT_EQ(ReadAll(folder.Options({"plain.tsv"})), rows);
  const Lines more{rows[0], rows[1], R"(3 {"a":3,"b":"z"})"};
  EXPECT_EQ(ReadAll(folder.Options({"a.tsv.gz"})), more);
  EXPECT_EQ(ReadAll(folder.Options({"b.tsv.zst"})), more);
}

TEST(ReadersTest, JsonFilesMayHoldLinesOrOneObject) {
  const TestFolder folder;
  folder.Write("lines.json", "{\"a\":1}\n{\"a\":2}\n");
  folder.Write("one.json", "\n{\n  \"a\": 3\n}\n");
  folder.Write("none.json", " [ ]\n");
  folder.Write("cut.json", "[{\"a\":4},\n{\"a\":5}");
  EXPECT_EQ(ReadAll(folder.Options({"lines.json"})), (Lines{R"(1 {"a":1})", R"(2 {"a":2})"}));
  EXPECT_EQ(ReadAll(folder.Options({"one.json"})), Lines{R"(1 {"a":3})"});
  EXPECT_EQ(ReadAll(folder.Options({"none.json"})), Lines{});
  EXPECT_EQ(
      ReadAll(folder.Options({"cut.json"})),
      (Lines{
          R"(1 {"a":4})", "2 bad_json: line 2: the file ends inside an array that is never closed"
      })
  );
}

TEST(ReadersTest, EmptyFilesHaveNoRows) {
  for (const char* name : {"a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"}) {
    const TestFolder folder;
    folder.Write(name, "");
    EXPECT_EQ(ReadAll(folder.Options({name})), Lines{});
  }
}

TEST(ReadersTest, SplitsCanBeReadInAnyOrder) {
  const TestFolder folder;
  std::string csv = "n,text\n";
  std::string json = "[";
  for (int i = 1; i <= 10000; ++i) {
    const std::string number = std::to_string(i);
    csv.append(number).append(",\"line\n").append(number).append(i % 100 == 0 ? "\"\n\n" : "\"\n");
    json.append("{\"n\":").append(number).append("},\n");
  }
  csv += "x,bad\n";
  folder.Write("a.csv", csv);
  folder.Write("a.csv.gz", Gzip(csv));
  folder.Write("a.json", json + "{\"n\":10001}]");
  folder.Write("a.txt.zst", Zstd(csv));
  for (const char* name : {"a.csv", "a.csv.gz", "a.json", "a.txt.zst"}) {
    const InputOptions options = folder.Options({name});
    const auto snapshot = TakeSnapshot(options, {});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    const Lines rows = ReadRows(*snapshot, options, {}).ValueOrDie();
    const auto splits = CutSplits(*snapshot, 777, 1 << 30);
    SplitReader reader(*snapshot, options, {}, 100);
    for (const std::size_t number : {5u, 2u, 2u, 12u, 0u, 1u, 7u}) {
      ASSERT_TRUE(reader.Open(splits[number]).ok());
      const auto batch = reader.Next().ValueOrDie();
      ASSERT_TRUE(batch.has_value());
      EXPECT_EQ(batch->first_record, static_cast<std::int64_t>(number) * 777 + 1);
      EXPECT_EQ(RowTexts(*batch).front(), rows[number * 777]);
    }
  }
  EXPECT_EQ(
      ReadAll(folder.Options({"a.csv"})).back(),
      "10001 bad_value: line 20102: column \"n\" is a string, expected int64: \"x\""
  );
}

// Broken rows, so that reading one would show.
class RowsLeftOut final : public UnreadRows {
 public:
  explicit RowsLeftOut(std::set<RowId> rows) : rows_(std::move(rows)) {}
  std::optional<std::pair<RowId, RowError>> NextUnread(const RowId& from) const override {
    const auto next = rows_.lower_bound(from);
    if (next == rows_.end() || next->file != from.file) return std::nullopt;
    return std::pair(*next, RowError{"read", "crash", "as told"});
  }

 private:
  const std::set<RowId> rows_;
};

TEST(ReadersTest, RowsThatAreLeftOutFailAsToldAndAreNotRead) {
  const TestFolder folder;
  for (const char* name : {"a.jsonl", "b.jsonl"}) {
    folder.Write(name, "{\"n\":1}\n{broken\n{broken\n{\"n\":4}\n{\"n\":5}\n{broken\n");
  }
  const InputOptions options = folder.Options({"*.jsonl"});
  const auto snapshot = TakeSnapshot(options, {});
  ASSERT_TRUE(snapshot.ok());
  const RowsLeftOut left_out({{0, 2}, {0, 3}, {0, 6}, {1, 1}, {1, 4}});
  const std::vector<std::string> expected{
      "1 {\"n\":1}",
      "2 crash: as told",
      "3 crash: as told",
      "4 {\"n\":4}",
      "5 {\"n\":5}",
      "6 crash: as told",
      "1 crash: as told",
      "2 bad_json",
      "3 bad_json",
      "4 crash: as told",
      "5 {\"n\":5}",
      "6 bad_json"
  };
  for (const std::int64_t batch_rows : {1, 2, 100}) {
    SplitReader reader(*snapshot, options, {}, batch_rows, &left_out);
    std::vector<std::string> rows;
    for (const Split& split : CutSplits(*snapshot, 5, 1 << 20)) {
      ASSERT_TRUE(reader.Open(split).ok());
      while (const auto batch = reader.Next().ValueOrDie()) {
        for (std::string& row : RowTexts(*batch)) {
          const std::size_t bad_json = row.find("bad_json");
          rows.push_back(bad_json == row.npos ? row : row.substr(0, bad_json + 8));
        }
      }
    }
    EXPECT_EQ(rows, expected);
  }
}

TEST(ReadersTest, BatchesOfLargeRowsAreBoundedByBytes) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 40; ++i) text += std::string(1 << 20, 'x') + "\n";
  folder.Write("a.txt", text);
  const InputOptions options = folder.Options({"a.txt"});
  const auto snapshot = TakeSnapshot(options, {});
  ASSERT_TRUE(snapshot.ok());
  const auto splits = CutSplits(*snapshot, 4096, 1 << 30);
  SplitReader reader(*snapshot, options, {}, 4096);
  ASSERT_TRUE(reader.Open(splits.at(0)).ok());
  EXPECT_LE(reader.Next().ValueOrDie()->columns->num_rows(), 17);
}

}  // namespace
}  // namespace millstream
