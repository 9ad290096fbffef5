// SPDX-License-Identifier: Apache-2.0
#include "storage/simulated_disk.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "storage/storage.h"

namespace millstream {
namespace {

constexpr Crash kPowerCuts[] = {Crash::kPowerNothing, Crash::kPowerPrefix, Crash::kPowerScramble};

class SimulatedDiskTest : public testing::Test {
 protected:
  static Status WriteFile(Storage& storage, const std::string& path, std::string_view bytes) {
    MS_ASSIGN_OR_RETURN(const auto stream, storage.Create(path));
    MS_RETURN_NOT_OK(stream->Write(bytes));
    return stream->Close();
  }

  const std::shared_ptr<SimulatedDisk> disk_ = std::make_shared<SimulatedDisk>(1);
  const std::unique_ptr<Storage> storage_ = MakeDiskStorage(disk_);
};

TEST_F(SimulatedDiskTest, AKillLosesNothing) {
  ASSERT_TRUE(WriteFile(*storage_, "a/b/c", "bytes").ok());
  disk_->Restart(Crash::kKill);
  EXPECT_EQ(storage_->Read("a/b/c", 100).ValueOrDie(), "bytes");
}

TEST_F(SimulatedDiskTest, APowerCutTakesWhatWasNotSynced) {
  ASSERT_TRUE(WriteFile(*storage_, "a/b/c", "bytes").ok());
  disk_->Restart(Crash::kPowerNothing);
  EXPECT_TRUE(IsNotFound(storage_->Read("a/b/c", 100).status()));
}

TEST_F(SimulatedDiskTest, UnsyncedAppendsMaySurviveInPartAndTorn) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string path = "log/" + std::to_string(i);
    auto file = storage_->CreateAppend(path).ValueOrDie();
    ASSERT_TRUE(file->Append("one").ok());
    ASSERT_TRUE(file->Sync().ok());
    ASSERT_TRUE(file->Append("two").ok());
    ASSERT_TRUE(file->Append("six").ok());
    disk_->Restart(kPowerCuts[i % 3]);
    const std::string bytes = storage_->Read(path, 100).ValueOrDie();
    EXPECT_TRUE(bytes.starts_with("one"));
    seen.insert(bytes);
  }
  EXPECT_TRUE(seen.contains("one"));
  EXPECT_TRUE(seen.contains("onetwosix"));
  EXPECT_TRUE(seen.contains(std::string("one\0\0\0six", 9)));
  EXPECT_TRUE(seen.contains("onetw"));
}

TEST_F(SimulatedDiskTest, WhatIsPublishedSurvivesEveryPowerCut) {
  for (const Crash crash : kPowerCuts) {
    const std::string path = "out/" + std::to_string(static_cast<int>(crash));
    ASSERT_TRUE(WriteFile(*storage_, "state/tmp", "bytes").ok());
    ASSERT_TRUE(storage_->Publish("state/tmp", path).ok());
    disk_->Restart(crash);
    EXPECT_EQ(storage_->Read(path, 100).ValueOrDie(), "bytes");
  }
}

// At whichever call the process dies, and whatever of it survives: one of the two, whole.
TEST_F(SimulatedDiskTest, AnExchangeLeavesTheOldFileOrTheNewOne) {
  std::set<std::string> seen;
  for (int die_at = 1; die_at < 12; ++die_at) {
    for (int i = 0; i < 30; ++i) {
      ASSERT_TRUE(storage_->Remove("out").ok());
      ASSERT_TRUE(PublishBytes(*storage_, "out/part", "old").ok());
      disk_->DieAt(die_at);
      const Status status = [&]() -> Status {
        MS_RETURN_NOT_OK(WriteFile(*storage_, "state/new", "new"));
        return storage_->Exchange("state/new", "out/part", "");
      }();
      disk_->Restart(kPowerCuts[i % 3]);
      const std::string bytes = storage_->Read("out/part", 100).ValueOrDie();
      EXPECT_TRUE(bytes == "old" || bytes == "new") << bytes;
      EXPECT_TRUE(!status.ok() || bytes == "new");
      seen.insert(bytes);
    }
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST_F(SimulatedDiskTest, ALockIsHeldUntilItsHolderEnds) {
  auto first = storage_->Lock("state/LOCK", "pid 1");
  ASSERT_TRUE(first.ok());
  const auto second = storage_->Lock("state/LOCK", "pid 2");
  EXPECT_TRUE(second.status().IsAlreadyExists());
  EXPECT_EQ(second.status().message(), "pid 1");
  first->reset();
  EXPECT_TRUE(storage_->Lock("state/LOCK", "pid 2").ok());
}

// Whatever fails in whatever way, an append reports it or the bytes are there.
TEST(FaultyDiskTest, AnAppendThatSaysOkIsThere) {
  for (const int error : {EINTR, EIO, ENOSPC}) {
    for (int at = 1; at < 12; ++at) {
      auto simulated = std::make_shared<SimulatedDisk>(1);
      auto faulty = std::make_shared<FaultyDisk>(simulated);
      const auto storage = MakeDiskStorage(faulty);
      faulty->FailAt(at, error, false);
      faulty->CutWriteAt(at);
      const Status status = [&]() -> Status {
        MS_ASSIGN_OR_RETURN(auto file, storage->CreateAppend("log"));
        MS_RETURN_NOT_OK(file->Append("first"));
        MS_RETURN_NOT_OK(file->Append("second"));
        return file->Sync();
      }();
      simulated->Restart(Crash::kPowerNothing);
      if (!status.ok()) continue;
      EXPECT_EQ(simulated->Files().at("log"), "firstsecond");
    }
  }
}

}  // namespace
}  // namespace millstream
