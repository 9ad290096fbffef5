// SPDX-License-Identifier: Apache-2.0
#include "data/digest.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "arrow/array/concatenate.h"
#include "arrow/type.h"
#include "data/json_value.h"
#include "data/testing.h"

namespace millstream {
namespace {

std::string DigestOf(const std::string& type_name, const std::vector<std::string>& values) {
  const auto type = ParseType(type_name).ValueOrDie();
  const auto builder = arrow::MakeBuilderExactIndex(type).ValueOrDie();
  for (const auto& value : values) {
    const Status status = AppendJson(value, *builder);
    EXPECT_TRUE(status.ok()) << status;
  }
  const auto schema = arrow::schema({arrow::field("c", type)});
  RowDigest digest(schema);
  const auto rows = static_cast<std::int64_t>(values.size());
  EXPECT_TRUE(
      digest.Add(*arrow::RecordBatch::Make(schema, rows, {builder->Finish().ValueOrDie()})).ok()
  );
  return digest.Hex();
}

TEST(RowDigestTest, BatchesAndSlicesDoNotMatter) {
  TestRandom random(21);
  for (int round = 0; round < 100; ++round) {
    const auto schema = RandomSchema(2, random);
    const auto whole = RandomBatch(schema, 60, random);
    RowDigest at_once(schema);
    ASSERT_TRUE(at_once.Add(*whole).ok());
    RowDigest in_slices(schema);
    RowDigest in_copies(schema);
    for (std::int64_t at = 0; at < 60;) {
      const auto length = static_cast<std::int64_t>(random() % 17);
      const auto slice = whole->Slice(at, length);
      at += slice->num_rows();
      ASSERT_TRUE(in_slices.Add(*slice).ok());
      arrow::ArrayVector copies;
      for (const auto& column : slice->columns()) {
        copies.push_back(arrow::Concatenate({column}).ValueOrDie());
      }
      ASSERT_TRUE(in_copies.Add(*arrow::RecordBatch::Make(schema, slice->num_rows(), copies)).ok());
    }
    ASSERT_EQ(at_once.Hex(), in_slices.Hex()) << schema->ToString();
    ASSERT_EQ(at_once.Hex(), in_copies.Hex()) << schema->ToString();
  }
}

TEST(RowDigestTest, EveryDifferenceShows) {
  const std::vector<std::pair<const char*, std::vector<std::string>>> tables = {
      {"string", {}},
      {"string", {"null"}},
      {"string", {"\"\""}},
      {"string", {"\"\"", "null"}},
      {"string", {"null", "\"\""}},
      {"string", {"\"ab\"", "\"c\""}},
      {"string", {"\"a\"", "\"bc\""}},
      {"binary", {"\"YQ==\"", "\"YmM=\""}},
      {"int64", {"1", "2"}},
      {"int64", {"2", "1"}},
      {"int64", {"1", "2", "null"}},
      {"int64", {"null", "1", "2"}},
      {"int32", {"1", "2"}},
      {"double", {"0"}},
      {"double", {"-0.0"}},
      {"double", {"\"NaN\""}},
      {"list<int64>", {"[]"}},
      {"list<int64>", {"null"}},
      {"list<int64>", {"[null]"}},
      {"list<int64>", {"[1]", "[2]"}},
      {"list<int64>", {"[1,2]", "[]"}},
      {"list<int64>", {"[]", "[1,2]"}},
      {"struct<a: int64>", {"null"}},
      {"struct<a: int64>", {"{}"}},
      {"struct<b: int64>", {"{}"}},
      {"timestamp[ms]", {"\"1970-01-01\""}},
      {"timestamp[us]", {"\"1970-01-01\""}},
      {"timestamp[ms, UTC]", {"\"1970-01-01T00:00:00Z\""}},
  };
  std::set<std::string> digests;
  for (const auto& [type, values] : tables) digests.insert(DigestOf(type, values));
  EXPECT_EQ(digests.size(), tables.size());
}

TEST(RowDigestTest, EncodingsDoNotMatter) {
  EXPECT_EQ(
      DigestOf("string", {"\"a\"", "\"b\"", "\"a\"", "null"}),
      DigestOf("dictionary<string, int8>", {"\"a\"", "\"b\"", "\"a\"", "null"})
  );
}

// Outputs are compared over years and machines, so a digest may never change.
TEST(RowDigestTest, IsTheSameForever) {
  EXPECT_EQ(DigestOf("string", {"\"a\"", "null", "\"\""}), "c94ea28743be869e7f053069bdce788c");
  EXPECT_EQ(
      DigestOf("struct<a: list<double>, b: bool>", {R"({"a":[1.5,null],"b":true})", "null"}),
      "6405739d1336ad6ef96ea1f849748fd6"
  );
}

TEST(RowDigestTest, BatchOfOtherColumnsIsRefused) {
  TestRandom random(1);
  RowDigest digest(RandomSchema(2, random));
  EXPECT_FALSE(digest.Add(*RandomBatch(RandomSchema(3, random), 1, random)).ok());
}

}  // namespace
}  // namespace millstream
