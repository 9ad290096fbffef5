// SPDX-License-Identifier: Apache-2.0
#include "job/disk_guard.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <vector>

#include "arrow/compute/initialize.h"
#include "job/testing.h"
#include "ledger/journal.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kMiB = 1 << 20;
constexpr auto kNever = std::chrono::hours(1000);

class DiskGuardTest : public testing::Test {
 protected:
  Result<std::unique_ptr<DiskGuard>> Start(std::stop_token drain = {}) {
    return DiskGuard::Start(
        storage_,
        {"out", folder_.path(), Ballast(), &in_flight_, std::move(drain), kNever},
        [this](const std::string& said) { said_.push_back(said); }
    );
  }
  std::string Ballast() const { return folder_ / "tmp/ballast"; }

  const TempFolder folder_;
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
  FaultyStorage storage_{*local_};
  std::atomic<std::int64_t> in_flight_ = 0;
  std::vector<std::string> said_;
};

TEST_F(DiskGuardTest, TheBallastIsAShareOfTheDiskUpToABoundAndGoesWithTheGuard) {
  for (const auto& [total, ballast] :
       {std::pair(1000 * kMiB, 50 * kMiB), {10'000'000 * kMiB, 64 * kMiB}}) {
    storage_.SetSpace({total, total, ""});
    const auto guard = Start();
    ASSERT_TRUE(guard.ok()) << guard.status();
    EXPECT_EQ(fs::file_size(Ballast()), ballast);
    EXPECT_FALSE((*guard)->drain().stop_requested());
    if (ballast == 50 * kMiB) (*guard)->Release();
    EXPECT_EQ(fs::exists(Ballast()), ballast != 50 * kMiB);
  }
  EXPECT_FALSE(fs::exists(Ballast()));
  EXPECT_TRUE(said_.empty());
}

TEST_F(DiskGuardTest, ADiskThatDoesNotTellItsSizeIsNotWatched) {
  storage_.SetSpace({0, 0, ""});
  const auto guard = Start();
  ASSERT_TRUE(guard.ok()) << guard.status();
  (*guard)->Look();
  EXPECT_FALSE((*guard)->is_short());
}

TEST_F(DiskGuardTest, NoMoreRowsAreBegunOnceTwiceThoseInFlightAndTheBallastDoNotFit) {
  storage_.SetSpace({80 * kMiB, 1000 * kMiB, ""});
  const auto started = Start();
  ASSERT_TRUE(started.ok()) << started.status();
  DiskGuard& guard = **started;
  in_flight_ = 15 * kMiB;  // 2 x 15 + 50 = 80
  guard.Look();
  EXPECT_FALSE(guard.is_short());
  in_flight_ += 1;
  guard.Look();
  EXPECT_TRUE(guard.is_short());
  EXPECT_TRUE(guard.drain().stop_requested());
  EXPECT_EQ(guard.free_bytes(), 80 * kMiB);
  EXPECT_NE(guard.Describe().find("83.9 MB left"), std::string::npos) << guard.Describe();
}

TEST_F(DiskGuardTest, ADrainOfTheRunIsOneOfItsOwnAndNoShortage) {
  std::stop_source drain;
  storage_.SetSpace({1000 * kMiB, 1000 * kMiB, ""});
  const auto guard = Start(drain.get_token());
  ASSERT_TRUE(guard.ok()) << guard.status();
  drain.request_stop();
  EXPECT_TRUE((*guard)->drain().stop_requested());
  EXPECT_FALSE((*guard)->is_short());
}

TEST_F(DiskGuardTest, WhereSpaceHasNoEndThereIsNothingToGuard) {
  const std::uint64_t endless = std::numeric_limits<std::uint64_t>::max();
  storage_.SetSpace({endless, endless, ""});
  const auto guard = Start();
  ASSERT_TRUE(guard.ok()) << guard.status();
  EXPECT_FALSE(fs::exists(Ballast()));
  storage_.SetSpace({0, endless, ""});
  (*guard)->Look();
  EXPECT_FALSE((*guard)->is_short());
}

TEST_F(DiskGuardTest, WhatIsRiskyAboutADiskIsSaidOnce) {
  storage_.SetSpace({1000 * kMiB, 1000 * kMiB, "it melts: keep it cool"});
  const auto guard = Start();
  ASSERT_TRUE(guard.ok()) << guard.status();
  (*guard)->Look();
  EXPECT_EQ(said_, std::vector<std::string>{"out: it melts: keep it cool"});
}

// Space falls after some answers: no more rows are begun, before any write fails.
TEST(DiskGuardJobTest, ARunStopsBeforeItsDiskIsFullAndGoesOnOnceThereIsRoom) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  const SmallJob job{true};
  const std::unique_ptr<Storage> local = MakeLocalStorage();
  FaultyStorage storage(*local);
  storage.SetSpace({1000 * kMiB, 1000 * kMiB, ""});
  int given = 0;
  JobOptions options = job.OptionsFor("out", "jsonl");
  options.disk_interval = kNever;
  options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.answer = [&, model = bound.model](const Request& request) {
      if (++given == 2) storage.SetSpace({49 * kMiB, 1000 * kMiB, ""});
      return SmallJob::Answer(request, *model);
    };
    script.per_poll = 1;
    script.max_requests = 2;
    return MakeScriptedEngine(std::move(script));
  };
  const auto stopped = RunQuietly(storage, options);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  EXPECT_EQ(stopped->exit, ExitCode::kStopped);
  EXPECT_NE(stopped->why_stopped.find("51.4 MB left"), std::string::npos) << stopped->why_stopped;
  EXPECT_LT(stopped->rows.total(), SmallJob::kRows);
  EXPECT_LE(given, 6);  // of 11: the first split's four, and two in the engine
  const std::string state = job.PathOf("out") + ".millstream";
  for (const auto& file : fs::recursive_directory_iterator(state)) {
    EXPECT_EQ(file.path().string().find("ballast"), std::string::npos) << file.path();
  }
  const auto history = ReadJournals(*local, state);
  ASSERT_TRUE(history.ok()) << history.status();
  EXPECT_EQ(history->entries.back().type, EntryType::kStop);
  EXPECT_EQ(history->entries.back().body["free_bytes"], 49 * kMiB);

  const auto again = RunQuietly(*local, job.OptionsFor("out", "jsonl"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(job.Found("out"), SmallJob::Expected(true));
}

}  // namespace
}  // namespace millstream
