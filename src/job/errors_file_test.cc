// SPDX-License-Identifier: Apache-2.0
// Failed rows in a file of their own: both files stand whole after a fault at any call to the disk
// and a run without one.
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "arrow/compute/initialize.h"
#include "job/retry.h"
#include "job/testing.h"
#include "job/verify.h"
#include "nlohmann/json.hpp"
#include "storage/simulated_disk.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

class ErrorsFileTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  JobOptions Options() const {
    JobOptions options = job_.OptionsFor("out.jsonl", "jsonl");
    options.overrides.sets.emplace_back("output.rows", "null");
    options.overrides.sets.emplace_back("output.errors", "failed.jsonl");
    options.runner.threads = 1;
    return options;
  }

  // The status of each row of a file.
  std::vector<std::string> StatusesOf(const std::string& file) const {
    std::vector<std::string> statuses;
    std::ifstream stream(job_.PathOf(file));
    for (std::string line; std::getline(stream, line);) {
      statuses.push_back(nlohmann::json::parse(line)["_status"]);
    }
    return statuses;
  }

  void ExpectWhole(const RowCounts& counts) const {
    const auto of = [](std::int64_t count, const char* status) {
      return std::vector<std::string>(static_cast<std::size_t>(count), status);
    };
    EXPECT_EQ(StatusesOf("out.jsonl"), of(counts.ok, "ok"));
    EXPECT_EQ(StatusesOf("failed.jsonl"), of(counts.error, "error"));
    const auto verified = VerifyOutput(*local_, job_.PathOf("out.jsonl"), {.deep = true});
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->complete);
    EXPECT_EQ(verified->counts, counts);
  }

  const SmallJob job_{true};
  const RowCounts expected_ = SmallJob::Counts(SmallJob::Expected(true));
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
};

TEST_F(ErrorsFileTest, AFaultAtAnyOfTheLastCallsIsMendedByTheNextRun) {
  ASSERT_GT(expected_.error, 0);
  constexpr std::int64_t kLastCalls = 50;  // the files are joined and published in these
  const auto run = [&](std::int64_t failing_call) {
    for (const char* file : {"out.jsonl", "failed.jsonl", "out.jsonl.millstream"}) {
      fs::remove_all(job_.PathOf(file));
    }
    const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
    if (failing_call > 0) disk->FailAt(failing_call, EIO, /*for_good=*/true);
    (void)RunQuietly(*MakeDiskStorage(disk), Options());
    return disk->num_calls();
  };
  const std::int64_t calls = run(0);
  ExpectWhole(expected_);
  int none = 0, between = 0, both = 0;  // runs that ended with so many of the files
  for (std::int64_t call = calls - kLastCalls; call <= calls && !HasFailure(); call += 2) {
    SCOPED_TRACE(call);
    run(call);
    const bool has_failed = fs::exists(job_.PathOf("failed.jsonl"));
    const bool has_output = fs::exists(job_.PathOf("out.jsonl"));
    EXPECT_TRUE(has_failed || !has_output);  // where the output stands, its failed rows do
    (has_output ? both : has_failed ? between : none) += 1;
    if (has_output) ExpectWhole(expected_);
    const auto second = RunQuietly(*local_, Options());
    ASSERT_TRUE(second.ok()) << second.status();
    ExpectWhole(expected_);
  }
  EXPECT_GT(none, 0);
  EXPECT_GT(between, 0);
  EXPECT_GT(both, 0);
}

TEST_F(ErrorsFileTest, AFaultAtAnyOfTheLastCallsOfARetryIsMendedByTheNextOne) {
  constexpr std::int64_t kLastCalls = 60;
  bool is_mended = false;
  JobOptions options = Options();
  options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.answer = [&, model = bound.model](const Request& request) {
      Completion completion = SmallJob::Answer(request, *model);
      if (is_mended) completion.reason = FinishReason::kStop;
      return completion;
    };
    return MakeScriptedEngine(std::move(script));
  };
  RetryOptions retry;
  retry.output = job_.PathOf("out.jsonl");
  retry.make_engine = options.make_engine;
  const auto retried = [&](Storage& storage) {
    JobMonitor monitor;
    return RetryRows(storage, retry, monitor, [](const std::string&) {}, {});
  };
  RowCounts mended;
  const auto run = [&](std::int64_t failing_call) {
    for (const char* file : {"out.jsonl", "failed.jsonl", "out.jsonl.millstream"}) {
      fs::remove_all(job_.PathOf(file));
    }
    is_mended = false;
    EXPECT_TRUE(RunQuietly(*local_, options).ok());
    is_mended = true;
    const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
    if (failing_call > 0) disk->FailAt(failing_call, EIO, /*for_good=*/true);
    const auto report = retried(*MakeDiskStorage(disk));
    if (report.ok()) mended = report->rows;
    return disk->num_calls();
  };
  const std::int64_t calls = run(0);
  EXPECT_LT(mended.error, expected_.error);
  ExpectWhole(mended);
  const RowCounts after = mended;
  for (std::int64_t call = calls - kLastCalls; call <= calls && !HasFailure(); call += 3) {
    for (const bool runs_again : {true, false}) {  // or is retried
      SCOPED_TRACE(call);
      run(call);
      const Status second =
          runs_again ? RunQuietly(*local_, options).status() : retried(*local_).status();
      ASSERT_TRUE(second.ok()) << second;
      if (runs_again) {
        ASSERT_TRUE(retried(*local_).ok());
      }
      ExpectWhole(after);
    }
  }
}

// Of a job that was stopped, or is to be written or retried once more.
TEST_F(ErrorsFileTest, AFileThatTheJobDidNotWriteIsLeftAsItIs) {
  const auto other = [&] {
    JobOptions options = job_.OptionsFor("other.jsonl", "jsonl");
    options.overrides.sets = Options().overrides.sets;
    options.overrides.sets.emplace_back("steps.check1.code", "of_another_job");
    return RunQuietly(*local_, options).status();
  };
  const auto read = [&](const std::string& file) {
    return *local_->Read(job_.PathOf(file), 99999);
  };
  const auto refused = [&](const Status& status, const std::string& file) {
    EXPECT_TRUE(IsConflict(status)) << status;
    EXPECT_NE(status.message().find(job_.PathOf(file) + " is not what this job"), std::string::npos)
        << status;
  };
  // Two jobs at once, of which the first is to end last.
  const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
  ASSERT_TRUE(RunQuietly(*MakeDiskStorage(disk), Options()).ok());
  const std::int64_t calls = disk->num_calls();
  for (const char* file : {"out.jsonl", "failed.jsonl", "out.jsonl.millstream"}) {
    fs::remove_all(job_.PathOf(file));
  }
  const auto stopped = std::make_shared<FaultyDisk>(MakeLocalDisk());
  stopped->FailAt(calls - 60, EIO, /*for_good=*/true);
  ASSERT_FALSE(RunQuietly(*MakeDiskStorage(stopped), Options()).ok());
  ASSERT_TRUE(other().ok());
  const std::string theirs = read("failed.jsonl");
  ASSERT_NE(theirs.find("of_another_job"), std::string::npos);
  refused(RunQuietly(*local_, Options()).status(), "failed.jsonl");
  EXPECT_EQ(read("failed.jsonl"), theirs);
  EXPECT_FALSE(fs::exists(job_.PathOf("out.jsonl")));
  fs::remove(job_.PathOf("failed.jsonl"));
  ASSERT_TRUE(RunQuietly(*local_, Options()).ok());
  ExpectWhole(expected_);
  refused(other(), "failed.jsonl");
  ExpectWhole(expected_);

  for (const char* file : {"failed.jsonl", "out.jsonl"}) {
    const std::string whole = read(file);
    // Also one of the same size, which is met as late as it is to be exchanged.
    for (const std::string& notes : {std::string("notes\n"), std::string(whole.size(), '\n')}) {
      std::ofstream(job_.PathOf(file), std::ios::trunc) << notes;
      RetryOptions retry;
      retry.output = job_.PathOf("out.jsonl");
      retry.sets = {{"steps.check1.that", "'{{ true }}'"}};
      retry.where = "check_failed";
      retry.make_engine = Options().make_engine;
      JobMonitor monitor;
      const auto retried = RetryRows(*local_, retry, monitor, [](const std::string&) {}, {});
      refused(retried.status(), file);
      EXPECT_EQ(read(file), notes);
    }
    std::ofstream(job_.PathOf(file), std::ios::trunc) << whole;
  }
}

TEST_F(ErrorsFileTest, AFileThatIsGoneIsWrittenAnew) {
  for (const char* file : {"failed.jsonl", "out.jsonl"}) {
    ASSERT_TRUE(RunQuietly(*local_, Options()).ok());
    fs::remove(job_.PathOf(file));
    EXPECT_TRUE(IsConflict(VerifyOutput(*local_, job_.PathOf("out.jsonl"), {}).status())) << file;
    ASSERT_TRUE(RunQuietly(*local_, Options()).ok());
    ExpectWhole(expected_);
  }
}

}  // namespace
}  // namespace millstream
