// SPDX-License-Identifier: Apache-2.0
#include "pipeline/runner.h"

#include <gtest/gtest.h>

#include "fmt/format.h"
#include "pipeline/testing.h"
#include "storage/testing.h"

namespace millstream {
namespace {

// By plain arithmetic.
TEST(RunnerTest, AccountsForEachRowOnceForAnyThreadsBatchesSplitsAndBudget) {
  std::string lines;
  std::map<std::int64_t, std::string> expected;
  for (int i = 0; i < 1000; ++i) {
    std::string& outcome = expected[i + 1];
    if (i % 100 == 99) {
      lines += "{broken\n";
      outcome = "error read bad_json";
      continue;
    }
    lines += fmt::format("{{\"id\": {}, \"text\": \"row number {}\"}}\n", i, i);
    outcome = i % 3 == 0   ? "skipped"
              : i % 5 == 0 ? "error fives check_failed"
                           : fmt::format("ok {} \"row number {}\" \"row n\"", i, i);
  }
  const TempFolder folder;
  const auto job = TestJob::Make(
      folder.path(),
      lines,
      "  - filter: \"{{ id % 3 != 0 }}\"\n  - check: {that: \"{{ id % 5 != 0 }}\"}\n    id: fives\n"
      "  - set: {title: \"{{ text[:5] }}\"}\n"
  );
  ASSERT_TRUE(job.ok()) << job.status();
  for (int threads : {1, 3}) {
    for (std::int64_t batch_rows : {7, 1024}) {
      for (std::int64_t split_rows : {64, 4096}) {
        for (std::int64_t budget_bytes : {1, 1 << 28}) {
          RecordedRows rows;
          const RunnerOptions options{threads, batch_rows, budget_bytes};
          const Status status = (*job)->Run(options, split_rows, {}, rows);
          ASSERT_TRUE(status.ok()) << status;
          EXPECT_EQ(rows.rows(), expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace millstream
