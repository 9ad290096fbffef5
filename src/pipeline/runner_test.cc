// SPDX-License-Identifier: Apache-2.0
#include "pipeline/runner.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "arrow/compute/initialize.h"
#include "base/mutex.h"
#include "data/reader.h"
#include "pipeline/in_flight.h"
#include "pipeline/operators.h"
#include "pipeline/parse_spec.h"

namespace millstream {
namespace {

// Counts what becomes of each row; a row that comes twice is a failure.
class CountingRows final : public RowSink {
 public:
  Status Finish(FinishedRows rows) override {
    MutexLock lock(mutex_);
    for (std::size_t i = 0; i < rows.batch.rows.size(); ++i) {
      const RowRef& row = rows.batch.rows[i];
      if (!seen_.insert(row.id).second) return Status::Invalid("a row came twice");
      switch (rows.status) {
        case RowStatus::kOk:
          ++ok;
          break;
        case RowStatus::kError:
          ++error;
          break;
        case RowStatus::kSkipped:
          ++skipped;
          break;
      }
    }
    return Status::OK();
  }

  std::int64_t ok = 0, error = 0, skipped = 0;

 private:
  Mutex mutex_;
  std::set<RowId> seen_ MS_GUARDED_BY(mutex_);
};

class RunnerTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(arrow::compute::Initialize().ok());
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream rows(folder_ / "rows.jsonl");
    for (int i = 0; i < 1000; ++i) {
      if (i % 100 == 99) {
        rows << "{broken\n";
      } else {
        rows << "{\"id\": " << i << ", \"text\": \"row number " << i << "\"}\n";
      }
    }
  }

  // Runs filter, check and set over the rows, and counts.
  void Run(const RunnerOptions& options, std::int64_t split_rows, CountingRows& rows) {
    const auto spec = ParseJobText(
        "name: t\ninput: {path: rows.jsonl}\nsteps:\n  - filter: \"{{ id % 3 != 0 }}\"\n"
        "  - check: {that: \"{{ id % 5 != 0 }}\"}\n  - set: {title: \"{{ text[:5] }}\"}\noutput: "
        "{path: out}\n",
        (folder_ / "job.yaml").string(),
        {}
    );
    ASSERT_TRUE(spec.ok()) << spec.status();
    InputOptions input;
    input.paths = {"rows.jsonl"};
    input.base_folder = folder_.string();
    const auto snapshot = TakeSnapshot(input, {});
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    const std::vector<Split> splits = CutSplits(*snapshot, split_rows, 1 << 20);
    RowBatch sample;
    sample.columns = *arrow::RecordBatch::MakeEmpty(snapshot->schema);
    sample.kept = arrow::RecordBatch::Make(arrow::schema({}), 0, arrow::ArrayVector{});
    const std::map<std::string, BoundModel> models;
    const auto job = BindJob(*spec, sample, {&models, 0});
    ASSERT_TRUE(job.ok()) << job.status();
    RunnerInput run{&*job, &*snapshot, &input, splits, {}, nullptr};
    const Status status = RunPipeline(run, options, rows, {});
    ASSERT_TRUE(status.ok()) << status;
  }

  std::filesystem::path folder_;
};

// Of ids 0..999 without 10 broken lines, by plain arithmetic.
TEST_F(RunnerTest, AccountsForEachRowOnceForAnyThreadsBatchesSplitsAndBudget) {
  std::int64_t ok = 0, error = 10, skipped = 0;
  for (int i = 0; i < 1000; ++i) {
    if (i % 100 == 99) continue;
    if (i % 3 == 0)
      ++skipped;
    else if (i % 5 == 0)
      ++error;
    else
      ++ok;
  }
  for (int threads : {1, 3}) {
    for (std::int64_t batch_rows : {7, 1024}) {
      for (std::int64_t split_rows : {64, 4096}) {
        for (std::int64_t budget_bytes : {1, 1 << 28}) {
          CountingRows rows;
          Run({threads, batch_rows, budget_bytes}, split_rows, rows);
          EXPECT_EQ(rows.ok, ok);
          EXPECT_EQ(rows.error, error);
          EXPECT_EQ(rows.skipped, skipped);
        }
      }
    }
  }
}

TEST(InFlightTest, TheOldestSplitIsAlwaysAdmittedAndOthersWaitForItsEnd) {
  InFlight in_flight(100);
  in_flight.Open(0, 1);
  in_flight.Open(1, 1);
  std::stop_source stop;
  EXPECT_TRUE(in_flight.Admit(0, 1000, stop.get_token()));
  stop.request_stop();
  EXPECT_FALSE(in_flight.Admit(1, 10, stop.get_token()));
  in_flight.Finish(0, 1);
  std::stop_source other;
  EXPECT_TRUE(in_flight.Admit(1, 1000, other.get_token()));
}

}  // namespace
}  // namespace millstream
