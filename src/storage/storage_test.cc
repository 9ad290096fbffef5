// SPDX-License-Identifier: Apache-2.0
#include "storage/storage.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "storage/disk.h"
#include "storage/simulated_disk.h"
#include "storage/testing.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kManyBytes = 1 << 20;

Status WriteFile(Storage& storage, const std::string& path, std::string_view bytes) {
  MS_ASSIGN_OR_RETURN(const auto stream, storage.Create(path));
  MS_RETURN_NOT_OK(stream->Write(bytes));
  return stream->Close();
}

class LocalStorageTest : public testing::Test {
 protected:
  const TempFolder folder_;
  const std::unique_ptr<Storage> storage_ = MakeLocalStorage();
};

TEST_F(LocalStorageTest, PublishedFileHasTheBytesAndTheOldNameIsGone) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "state/tmp/x", "some bytes").ok());
  ASSERT_TRUE(storage_->Publish(folder_ / "state/tmp/x", folder_ / "out/a/part").ok());
  EXPECT_EQ(storage_->Read(folder_ / "out/a/part", kManyBytes).ValueOrDie(), "some bytes");
  EXPECT_FALSE(fs::exists(folder_ / "state/tmp/x"));
}

TEST_F(LocalStorageTest, PublishNeverReplaces) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "first", "1").ok());
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "second", "2").ok());
  ASSERT_TRUE(storage_->Publish(folder_ / "first", folder_ / "part").ok());
  EXPECT_TRUE(storage_->Publish(folder_ / "second", folder_ / "part").IsAlreadyExists());
  EXPECT_EQ(storage_->Read(folder_ / "part", kManyBytes).ValueOrDie(), "1");
  EXPECT_TRUE(fs::exists(folder_ / "second"));
}

TEST_F(LocalStorageTest, OneOfManyRacingPublishersWins) {
  constexpr int kThreads = 4;
  std::atomic<int> winners = 0;
  std::atomic<int> losers = 0;
  std::vector<std::jthread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const Status status = PublishBytes(*storage_, folder_ / "plan", std::to_string(i));
      if (status.ok()) ++winners;
      if (status.IsAlreadyExists()) ++losers;
    });
  }
  threads.clear();
  EXPECT_EQ(winners, 1);
  EXPECT_EQ(losers, kThreads - 1);
  EXPECT_EQ(storage_->List(folder_.path()).ValueOrDie().size(), 1U);
}

TEST_F(LocalStorageTest, StateFoldersAreForTheOwnerOnly) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "out.millstream/tmp/x", "").ok());
  struct stat info{};
  ASSERT_EQ(stat((folder_ / "out.millstream").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
}

TEST_F(LocalStorageTest, ReadOfAMissingFileIsNotFound) {
  const Status status = storage_->Read(folder_ / "none", kManyBytes).status();
  EXPECT_TRUE(IsNotFound(status));
  EXPECT_EQ(status.message(), "cannot open " + (folder_ / "none") + ": No such file or directory");
  EXPECT_FALSE(IsNotFound(Status::Invalid("x")));
}

TEST_F(LocalStorageTest, ReadIsBounded) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "big", "12345").ok());
  EXPECT_EQ(storage_->Read(folder_ / "big", 5).ValueOrDie(), "12345");
  EXPECT_TRUE(storage_->Read(folder_ / "big", 4).status().IsInvalid());
}

TEST_F(LocalStorageTest, ListIsSortedAndEmptyForAMissingFolder) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "d/b", "12").ok());
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "d/a", "1").ok());
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "d/c/x", "").ok());
  const auto files = storage_->List(folder_ / "d").ValueOrDie();
  ASSERT_EQ(files.size(), 3U);
  EXPECT_EQ(files[0].name, "a");
  EXPECT_EQ(files[1].size_bytes, 2U);
  EXPECT_TRUE(files[2].is_folder);
  EXPECT_TRUE(storage_->List(folder_ / "none").ValueOrDie().empty());
}

TEST_F(LocalStorageTest, RemoveTakesAFolderWithAllInItAndMissingOnes) {
  ASSERT_TRUE(WriteFile(*storage_, folder_ / "d/e/f", "").ok());
  EXPECT_TRUE(storage_->Remove(folder_ / "d").ok());
  EXPECT_FALSE(fs::exists(folder_ / "d"));
  EXPECT_TRUE(storage_->Remove(folder_ / "d").ok());
}

// A driver drops the row log of a split while a worker that it took for dead opens its own.
TEST_F(LocalStorageTest, AFileIsCreatedWheneverAnotherRemovesItsFolder) {
  const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
  const auto storage = MakeDiskStorage(disk);
  const std::string path = folder_ / "rows/000001/log";
  std::int64_t num_calls = 1;
  for (std::int64_t call = 1; call <= num_calls; ++call) {
    fs::remove_all(folder_ / "rows/000001");
    const std::int64_t before = disk->num_calls();
    disk->CallAt(call, [this] { fs::remove_all(folder_ / "rows/000001"); });
    const auto created = storage->CreateAppend(path);
    ASSERT_TRUE(created.ok()) << call << ": " << created.status();
    num_calls = disk->num_calls() - before;
  }
  EXPECT_GT(num_calls, 2);
}

TEST_F(LocalStorageTest, ErrorsNameTheFile) {
  std::ofstream(folder_ / "file") << "x";
  const Status status = storage_->Create(folder_ / "file/below").status();
  EXPECT_NE(status.message().find(folder_ / "file"), std::string::npos) << status;
  EXPECT_FALSE(storage_->Publish(folder_ / "none", folder_ / "part").ok());
}

TEST_F(LocalStorageTest, FullDiskSaysWhatToDo) {
  if (!fs::exists("/dev/full")) GTEST_SKIP();
  const Status status = WriteFile(*storage_, "/dev/full", "x");
  EXPECT_TRUE(IsDiskFull(status));
  EXPECT_NE(status.message().find("make room and run the same command again"), std::string::npos);
}

TEST(FaultyStorageTest, PublishBytesLeavesAllOrNothingWhicheverOperationFails) {
  const auto local = MakeLocalStorage();
  FaultyStorage clean(*local);
  const TempFolder folder;
  ASSERT_TRUE(PublishBytes(clean, folder / "whole", "bytes").ok());
  ASSERT_GT(clean.num_operations(), 3);
  for (int n = 1; n <= clean.num_operations(); ++n) {
    FaultyStorage faulty(*local);
    faulty.FailAt(n, ENOSPC);
    const std::string path = folder / ("file" + std::to_string(n));
    EXPECT_TRUE(IsDiskFull(PublishBytes(faulty, path, "bytes"))) << n;
    EXPECT_TRUE(faulty.has_failed());
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(local->List(folder.path()).ValueOrDie().size(), 1U);
}

TEST(FaultyStorageTest, AFailureMayComeLateOrForGood) {
  const auto local = MakeLocalStorage();
  const TempFolder folder;
  const auto bytes_after = [&](Fault fault, const std::string& name, bool* next_fails) {
    FaultyStorage faulty(*local);
    faulty.FailAt(2, EIO, fault);
    const auto stream = faulty.Create(folder / name).ValueOrDie();
    EXPECT_FALSE(stream->Write("12", 2).ok());
    *next_fails = !stream->Close().ok();
    return local->Read(folder / name, 10).ValueOrDie();
  };
  bool next_fails = false;
  EXPECT_EQ(bytes_after(Fault::kFails, "once", &next_fails), "1");
  EXPECT_FALSE(next_fails);
  EXPECT_EQ(bytes_after(Fault::kFailsLate, "late", &next_fails), "12");
  EXPECT_FALSE(next_fails);
  EXPECT_EQ(bytes_after(Fault::kFailsForGood, "good", &next_fails), "1");
  EXPECT_TRUE(next_fails);
}

TEST(FaultyStorageTest, CallsBeforeTheOperationAskedFor) {
  const auto local = MakeLocalStorage();
  FaultyStorage storage(*local);
  const TempFolder folder;
  bool called = false;
  storage.CallAt(2, [&] { called = true; });
  ASSERT_TRUE(storage.Remove(folder / "a").ok());
  EXPECT_FALSE(called);
  ASSERT_TRUE(storage.Remove(folder / "a").ok());
  EXPECT_TRUE(called);
}

}  // namespace
}  // namespace millstream
