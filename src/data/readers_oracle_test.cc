// SPDX-License-Identifier: Apache-2.0
// Files that Python's json and csv modules and pyarrow judged (tests/data/readers/make_readers.py),
// read by ours: the same rows and the same errors, however they are cut into batches and splits.

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/readers_testing.h"

namespace millstream {
namespace {

std::vector<nlohmann::json> Expected(const std::string& name) {
  std::ifstream file(std::string(MS_TEST_DATA) + "/readers/" + name + ".expected");
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(file, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

InputOptions Oracle(const std::string& name) {
  InputOptions options;
  options.paths = {name};
  options.base_folder = std::string(MS_TEST_DATA) + "/readers";
  return options;
}

void ExpectRow(const std::string& row, const nlohmann::json& expected) {
  const std::string text = row.substr(row.find(' ') + 1);
  if (!expected.contains("error")) {
    ASSERT_EQ(text.substr(0, 1), "{") << row << "\n" << expected.dump();
    EXPECT_EQ(nlohmann::json::parse(text), expected["row"]) << row;
  } else if (expected["error"] == "*") {
    EXPECT_NE(text.find(": line"), text.npos) << row;
  } else {
    EXPECT_EQ(text.substr(0, text.find(':')), expected["error"].get<std::string>()) << row;
  }
}

void ExpectAsJudged(const std::string& name, const std::string& judged) {
  const auto expected = Expected(judged);
  const auto rows = ReadAll(Oracle(name));
  ASSERT_FALSE(expected.empty());
  ASSERT_EQ(rows.size(), expected.size()) << rows.front();
  for (std::size_t i = 0; i < rows.size(); ++i) ExpectRow(rows[i], expected[i]);
  for (const std::int64_t batch_rows : {1, 7, 64}) {
    for (const std::int64_t split_rows : {1, 10, 1000}) {
      EXPECT_EQ(
          ReadAll(
              Oracle(name), {.batch_rows = batch_rows, .split_rows = split_rows, .columns = {}}
          ),
          rows
      );
    }
  }
}

TEST(ReadersOracleTest, JsonLines) {
  ExpectAsJudged("rows.jsonl", "rows.jsonl");
}
TEST(ReadersOracleTest, JsonArray) {
  ExpectAsJudged("rows.json", "rows.json");
}
TEST(ReadersOracleTest, Csv) {
  ExpectAsJudged("rows.csv", "rows.csv");
}
TEST(ReadersOracleTest, Parquet) {
  ExpectAsJudged("types.parquet", "types.parquet");
}
TEST(ReadersOracleTest, ArrowFile) {
  ExpectAsJudged("types.arrow", "types.parquet");
}
TEST(ReadersOracleTest, ArrowStreamOfViewsExtensionsAndRuns) {
  ExpectAsJudged("extras.arrows", "extras.arrows");
}

TEST(ReadersOracleTest, TypesSurviveParquetAndArrow) {
  const std::vector<std::string> types{
      "bool: bool", "float: float", "double: double", "string: string", "large_string: large_string"
  };
  auto parquet = ColumnTypes(Oracle("types.parquet"));
  EXPECT_EQ(parquet, ColumnTypes(Oracle("types.arrow")));
  parquet.resize(types.size());
  EXPECT_EQ(parquet, types);
}

TEST(ReadersOracleTest, CompressedFilesHaveTheSameRows) {
  const TestFolder folder;
  for (const std::string name : {"rows.jsonl", "rows.csv", "rows.json"}) {
    std::ifstream file(std::string(MS_TEST_DATA) + "/readers/" + name, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    folder.Write(name + ".gz", Gzip(text));
    folder.Write(name + ".zst", Zstd(text));
    const auto rows = ReadAll(Oracle(name));
    EXPECT_EQ(
        ReadAll(folder.Options({name + ".gz"}), {.batch_rows = 9, .split_rows = 20, .columns = {}}),
        rows
    );
    EXPECT_EQ(ReadAll(folder.Options({name + ".zst"})), rows);
  }
}

}  // namespace
}  // namespace millstream
