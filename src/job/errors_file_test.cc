// SPDX-License-Identifier: Apache-2.0
// Failed rows in a file of their own: both files stand whole after a fault at any call to the disk
// and a run without one.
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "arrow/compute/initialize.h"
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
