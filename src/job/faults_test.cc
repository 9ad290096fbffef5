// SPDX-License-Identifier: Apache-2.0
// Suite 5 of docs/reliability.md: any call to the disk fails, once or for good, or writes less than
// it was given. The run ends whole, or says clearly why not; nothing that stands is false, and a
// run without faults ends whole.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>

#include "arrow/compute/initialize.h"
#include "base/torture.h"
#include "fmt/format.h"
#include "job/testing.h"
#include "job/verify.h"
#include "ledger/testing.h"
#include "storage/simulated_disk.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

struct DiskFault {
  std::int64_t call = 0;
  int error = 0;  // 0: a write is cut short
  bool for_good = false;
};

class TortureFaultsTest : public testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  JobOptions Options() {
    JobOptions options = job_.OptionsFor("out", "jsonl");
    options.runner.threads = 1;
    options.runner.batch_rows = 3;
    return options;
  }

  // What stands is whole, and says so.
  void ExpectWhole(const RowCounts& reported) {
    EXPECT_EQ(job_.Found("out"), expected_);
    EXPECT_EQ(reported, SmallJob::Counts(expected_));
    const auto verified = VerifyOutput(*local_, job_.PathOf("out"), {.digest = true, .deep = true});
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->complete);
    if (digest_.empty()) digest_ = verified->digest;
    EXPECT_EQ(verified->digest, digest_);
    EXPECT_TRUE(fs::exists(job_.PathOf("out") + ".millstream/success.json"));
  }

  // What stands after a failure is true, if not whole.
  void ExpectNothingFalse() {
    if (fs::exists(job_.PathOf("out") + ".millstream/job.json")) {
      const auto verified = VerifyOutput(*local_, job_.PathOf("out"), {});
      EXPECT_TRUE(verified.ok()) << verified.status();
    }
    const std::vector<std::string> found = job_.Found("out");
    const auto by_record = [](const std::string& a, const std::string& b) {
      const int first = std::stoi(a), second = std::stoi(b);
      return first != second ? first < second : a < b;
    };
    EXPECT_TRUE(
        std::includes(expected_.begin(), expected_.end(), found.begin(), found.end(), by_record)
    );
  }

  static void ExpectClear(const Status& status, int error) {
    if (error == EAGAIN && status.IsCancelled()) return;  // so says a lock that another has
    const ExitCode exit = ExitCodeOf(status);
    const bool is_full = error == ENOSPC || error == EDQUOT;
    EXPECT_EQ(exit, is_full ? ExitCode::kStopped : exit) << status;
    EXPECT_TRUE(exit == ExitCode::kStopped || exit == ExitCode::kWrong) << status;
    EXPECT_NE(status.message().find(std::generic_category().message(error)), std::string::npos)
        << status;
  }

  // Runs with a fault, then without. Returns whether the fault came.
  bool Try(const DiskFault& fault) {
    SCOPED_TRACE(fmt::format(
        "call {}, errno {}, {}", fault.call, fault.error, fault.for_good ? "for good" : "once"
    ));
    for (const char* folder : {"out", "out.millstream"}) fs::remove_all(job_.PathOf(folder));
    const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
    if (fault.error == 0) {
      disk->CutWriteAt(fault.call);
    } else {
      disk->FailAt(fault.call, fault.error, fault.for_good);
    }
    const std::unique_ptr<Storage> storage = MakeDiskStorage(disk);
    const auto first = RunQuietly(*storage, Options());
    ++cases_;
    if (first.ok()) {
      ++survived_;
      ExpectWhole(first->rows);
    } else {
      EXPECT_TRUE(disk->has_failed()) << first.status();
      ExpectClear(first.status(), fault.error);
      ExpectNothingFalse();
    }
    calls_ = std::max(calls_, disk->num_calls());
    const auto second = RunQuietly(*local_, Options());
    EXPECT_TRUE(second.ok()) << second.status();
    if (second.ok()) ExpectWhole(second->rows);
    return disk->num_calls() >= fault.call;
  }

  const SmallJob job_{true};
  const std::vector<std::string> expected_ = SmallJob::Expected(true);
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
  std::string digest_;
  std::int64_t cases_ = 0, survived_ = 0, calls_ = 0;
};

constexpr int kShards = 2;
INSTANTIATE_TEST_SUITE_P(Shards, TortureFaultsTest, testing::Range(0, kShards));

TEST_P(TortureFaultsTest, AFailedCallIsSaidAndLosesNothing) {
  constexpr int kErrors[] = {EIO, ENOSPC, EDQUOT, EINTR, EAGAIN, EMFILE, ENOMEM};
  constexpr int kKinds = 15;  // each error once and for good, and a cut write
  constexpr int kStep = kIsSlow ? 60 : 2;
  const std::uint64_t seed = TortureSeed();
  int kind =
      static_cast<int>(seed % kStep) + GetParam() * kStep;  // those that are left come next time
  for (std::int64_t call = 1; !HasFailure();) {
    DiskFault fault{call, kind < kKinds - 1 ? kErrors[kind / 2] : 0, kind % 2 == 1};
    if (fault.error == EINTR) fault.for_good = false;  // no signal comes for ever
    if (!Try(fault)) break;
    kind += kShards * kStep;
    while (kind >= kKinds) {
      kind -= kKinds;
      ++call;
    }
  }
  fmt::print(
      "TORTURE {{\"suite\": \"faults\", \"seed\": {}, \"calls\": {}, \"faults\": {}, \"survived\": "
      "{}, \"wrong\": {}}}\n",
      seed,
      calls_,
      cases_,
      survived_,
      HasFailure() ? 1 : 0
  );
}

}  // namespace
}  // namespace millstream
