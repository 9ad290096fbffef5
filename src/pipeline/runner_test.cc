// SPDX-License-Identifier: Apache-2.0
#include "pipeline/runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

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

// Notes how many rows are in it at once.
class Crowd final : public Operator {
 public:
  explicit Crowd(std::atomic<std::int64_t>& most) : most_(most) {}
  Status Process(RowBatch batch, Emitter& out) const override {
    const std::int64_t now = inside_ += batch.num_rows();
    for (int i = 0; i < 20; ++i) std::this_thread::yield();  // let the others come
    std::int64_t most = most_;
    while (most < now && !most_.compare_exchange_weak(most, now)) {
    }
    inside_ -= batch.num_rows();
    return out.Emit(std::move(batch));
  }

 private:
  std::atomic<std::int64_t>& most_;
  mutable std::atomic<std::int64_t> inside_ = 0;
};

TEST(RunnerTest, WithoutBudgetOnlyTheOldestSplitIsReadHoweverManyReaders) {
  const TempFolder folder;
  std::string lines;
  for (int i = 0; i < 600; ++i) lines += "{\"id\": 1, \"text\": \"a\"}\n";
  const auto job = TestJob::Make(folder.path(), lines, "  - filter: \"{{ id > 0 }}\"\n");
  ASSERT_TRUE(job.ok()) << job.status();
  std::atomic<std::int64_t> most = 0;
  (*job)->bound.segments[0].operators.push_back(std::make_unique<Crowd>(most));
  RecordedRows rows;
  const RunnerOptions options{/*threads=*/4, /*batch_rows=*/1, /*budget_bytes=*/1};
  const Status status = (*job)->Run(options, 2, {}, rows);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(rows.rows().size(), 600U);
  EXPECT_EQ(most, 1);
}

}  // namespace
}  // namespace millstream
