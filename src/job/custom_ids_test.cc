// SPDX-License-Identifier: Apache-2.0
#include "job/custom_ids.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "storage/testing.h"

namespace millstream {
namespace {

class CustomIdsTest : public testing::Test {
 protected:
  std::string Doubled(const std::string& lines, std::int64_t most_rows = kCustomIdsMax) {
    std::ofstream(folder_ / "in.jsonl") << lines;
    InputOptions input;
    input.paths = {"in.jsonl"};
    input.base_folder = folder_.path();
    const auto snapshot = TakeSnapshot(input, {});
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    const auto splits = CutSplits(*snapshot, 2, 1 << 20);
    const auto doubled = DoubledCustomIds(*snapshot, input, splits, most_rows, {});
    EXPECT_TRUE(doubled.ok()) << doubled.status();
    return *doubled;
  }

  const TempFolder folder_;
};

TEST_F(CustomIdsTest, IdsThatDifferAreNoMatter) {
  EXPECT_EQ(
      Doubled("{\"custom_id\": \"a\"}\n{\"custom_id\": null}\n{}\n{\"custom_id\": \"b\"}\n"), ""
  );
  EXPECT_EQ(Doubled("{\"x\": 1}\n{\"x\": 1}\n"), "");
}

TEST_F(CustomIdsTest, DoubledOnesAreCountedOnceEachWithAnExample) {
  const std::string a = "{\"custom_id\": \"a\"}\n";
  EXPECT_EQ(
      Doubled("{\"custom_id\": \"b\"}\n" + a + "not json\n" + a + a),
      "1 custom_id stands more than once, such as \"a\" at in.jsonl:2 and in.jsonl:4: every line "
      "is "
      "answered"
  );
  const std::string two = Doubled(a + a + "{\"custom_id\": \"b\"}\n{\"custom_id\": \"b\"}\n");
  EXPECT_TRUE(two.starts_with("2 custom_ids stand more than once")) << two;
}

TEST_F(CustomIdsTest, OnlySoManyRowsAreRemembered) {
  const std::string a = "{\"custom_id\": \"a\"}\n", b = "{\"custom_id\": \"b\"}\n";
  EXPECT_EQ(Doubled(a + b + b, 2), "");
  const std::string found = Doubled(a + a + b + b, 3);
  EXPECT_TRUE(found.starts_with("1 custom_id stands")) << found;
  EXPECT_TRUE(found.ends_with("; only the first 3 lines were looked at")) << found;
}

}  // namespace
}  // namespace millstream
