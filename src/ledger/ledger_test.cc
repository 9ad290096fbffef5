// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "storage/disk.h"
#include "storage/object_storage.h"
#include "storage/simulated_disk.h"
#include "storage/simulated_store.h"
#include "storage/testing.h"

namespace millstream {
namespace {

class LedgerTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) /
        (std::string("ledger_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    UseFolder(folder_);
    storage_ = MakeLocalStorage();
  }

  // The job's from now on.
  void UseFolder(const std::filesystem::path& folder) {
    folder_ = folder;
    std::filesystem::create_directories(folder_);
    layout_ = OutputLayout::Of((folder_ / "out").string(), ".jsonl");
  }

  std::unique_ptr<Ledger> Create() {
    auto ledger = Ledger::Create(*storage_, layout_, {{"id", "a"}}, {{"splits", 2}});
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    const auto begun = (*ledger)->Begin({{"pid", 1}});
    EXPECT_TRUE(begun.ok()) << begun.status();
    return *std::move(ledger);
  }

  std::unique_ptr<Ledger> Load() {
    auto ledger = Ledger::Load(*storage_, layout_);
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    return *std::move(ledger);
  }

  FinishedPart Finished(
      const Ledger& ledger, std::int64_t split, const std::string& bytes, const RowCounts& counts
  ) {
    const std::string path = ledger.TemporaryPath(std::to_string(split));
    Write(path, bytes);
    return {split, path, {}, {{HashOf(bytes), bytes.size()}, counts, {}, {}}};
  }

  // One with a failed row, which its output leaves out.
  FinishedPart WithErrors(const Ledger& ledger, std::int64_t split, const std::string& bytes) {
    FinishedPart part = Finished(ledger, split, bytes, {1, 1, 0});
    const std::string failed = "failed of " + bytes;
    part.errors_path = part.path + ".errors";
    Write(part.errors_path, failed);
    part.committed.errors = {HashOf(failed), failed.size()};
    return part;
  }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
  }

  std::filesystem::path folder_;
  OutputLayout layout_;
  std::unique_ptr<Storage> storage_;
};

TEST_F(LedgerTest, AJobIsBornOnceAndLoadedAsItWasWritten) {
  Create();
  EXPECT_TRUE(
      Ledger::Create(*storage_, layout_, {{"id", "b"}}, {{"splits", 3}}).status().IsAlreadyExists()
  );
  const auto loaded = Ledger::Load(*storage_, layout_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->job()["id"], "a");
  EXPECT_EQ((*loaded)->plan()["splits"], 2);
}

TEST_F(LedgerTest, APublishedPartNeverChangesAndItsCountsAreFoundAgain) {
  auto ledger = Create();
  ASSERT_TRUE(ledger->PublishParts({Finished(*ledger, 1, "first\n", {3, 1, 2})}).ok());
  ASSERT_TRUE(ledger->PublishParts({Finished(*ledger, 1, "second\n", {4, 0, 2})}).ok());
  EXPECT_EQ(*storage_->Read(layout_.PartPath(1), 100), "first\n");
  EXPECT_FALSE(std::filesystem::exists(ledger->TemporaryPath("1")));
  const auto parts = Load()->Parts();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->at(1).counts, (RowCounts{3, 1, 2}));
}

TEST_F(LedgerTest, APartThatWasChangedOrIsGoneIsAConflict) {
  auto ledger = Create();
  ASSERT_TRUE(ledger->PublishParts({Finished(*ledger, 0, "row\n", {1, 0, 0})}).ok());
  ASSERT_TRUE(ledger->PublishParts({Finished(*ledger, 1, "row\n", {1, 0, 0})}).ok());
  Write(layout_.PartPath(1), "another\n");
  EXPECT_TRUE(IsConflict(Load()->Parts().status()));
  std::filesystem::remove(layout_.PartPath(1));
  EXPECT_TRUE(IsConflict(Load()->Parts().status()));
}

// Its first bytes are wrong, and later records say that they were durable.
TEST_F(LedgerTest, AJournalThatBeginsOtherwiseIsDamagedAndNotUnbegun) {
  ASSERT_TRUE(Create()->Record(EntryType::kDrain, {{"rows", 1}}).ok());
  const std::string path = layout_.state + "/journal-0001";
  std::string bytes = *storage_->Read(path, 1 << 20);
  bytes[7] ^= 1;
  Write(path, bytes);
  const Status loaded = Ledger::Load(*storage_, layout_).status();
  EXPECT_TRUE(IsConflict(loaded)) << loaded;
  EXPECT_NE(loaded.message().find("journal-0001"), std::string::npos) << loaded;
}

TEST_F(LedgerTest, APartThatAListingLacksIsLookedForByItsName) {
  const auto writer = Create();
  ASSERT_TRUE(writer->PublishParts({Finished(*writer, 0, "rows", {1, 0, 0})}).ok());
  FaultyStorage lagging(*storage_);
  lagging.HideFromListings("part-000000.jsonl");
  const auto seen = Ledger::Load(lagging, layout_);
  ASSERT_TRUE(seen.ok()) << seen.status();
  const auto parts = (*seen)->Parts();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_TRUE(parts->contains(0));
  Write(layout_.PartPath(0), "other rows");
  EXPECT_TRUE(IsConflict((*seen)->Parts().status()));
  ASSERT_TRUE(storage_->Remove(layout_.PartPath(0)).ok());
  EXPECT_TRUE(IsConflict((*seen)->Parts().status()));
}

TEST_F(LedgerTest, APartOfNoneOfThisJobsIntentsIsAConflict) {
  auto ledger = Create();
  Write(layout_.PartPath(0), "foreign\n");
  const Status published =
      ledger->PublishParts({Finished(*ledger, 0, "row\n", {1, 0, 0})}).status();
  EXPECT_TRUE(IsConflict(published)) << published;
  EXPECT_EQ(*storage_->Read(layout_.PartPath(0), 100), "foreign\n");
}

// A prune that was taken for dead wakes at any of its operations, after another driver has replaced
// a part or published one: the failed rows' files that those name stay.
TEST_F(LedgerTest, APruneThatWasTakenOverLeavesWhatItsSuccessorsPartsName) {
  int removed = 0;
  const std::filesystem::path base = folder_;
  for (int n = 1;; ++n) {
    SCOPED_TRACE(n);
    UseFolder(base / std::to_string(n));
    const auto first = Create();
    ASSERT_TRUE(first->PublishParts({WithErrors(*first, 0, "old 0\n")}).ok());
    const auto retry = Load();
    ASSERT_TRUE(retry->Begin({{"pid", 2}}, Work::kRetry).ok());
    ASSERT_TRUE(retry->ReplaceParts({WithErrors(*retry, 0, "new 0\n")}).ok());
    FaultyStorage slow(*storage_);
    slow.CallAt(n, [&] {
      const auto other = Load();
      ASSERT_TRUE(other->Begin({{"pid", 3}}, Work::kRetry).ok());
      ASSERT_TRUE(other->ReplaceParts({WithErrors(*other, 0, "newer 0\n")}).ok());
      const auto run = Load();
      ASSERT_TRUE(run->Begin({{"pid", 4}}).ok());
      ASSERT_TRUE(run->PublishParts({WithErrors(*run, 1, "old 1\n")}).ok());
    });
    const auto ledger = Ledger::Load(slow, layout_);
    const Status pruned = ledger.ok() ? (*ledger)->Prune({{"pid", 5}}) : ledger.status();
    removed += pruned.ok() ? 1 : 0;
    for (const auto& [split, part] : *Load()->Parts()) {
      const Status checked = Load()->CheckPart(split, part);
      EXPECT_TRUE(checked.ok()) << checked;
    }
    if (HasFailure() || n > slow.num_operations()) break;
  }
  EXPECT_GT(removed, 0);
}

// A run that lost its lock is publishing a part, whose failed rows' file is there first.
TEST_F(LedgerTest, APruneBesideARunLeavesTheFailedRowsOfPartsToCome) {
  int pruned = 0;
  const std::filesystem::path base = folder_;
  for (int n = 1;; ++n) {
    SCOPED_TRACE(n);
    UseFolder(base / std::to_string(n));
    Create();
    FaultyStorage slow(*storage_);
    const auto run = Ledger::Load(slow, layout_);
    ASSERT_TRUE(run.ok() && (*run)->Begin({{"pid", 1}}).ok());
    // Not among the unpublished files, which the other one removes.
    FinishedPart part = WithErrors(**run, 0, "rows\n");
    for (std::string* path : {&part.path, &part.errors_path}) {
      const std::string beside = (folder_ / std::filesystem::path(*path).filename()).string();
      std::filesystem::rename(*path, beside);
      *path = beside;
    }
    const int before = slow.num_operations();
    slow.CallAt(n, [&] { pruned += Load()->Prune({{"pid", 2}}).ok() ? 1 : 0; });
    ASSERT_TRUE((*run)->PublishParts({part}).ok());
    const Status checked = Load()->CheckPart(0, part.committed);
    EXPECT_TRUE(checked.ok()) << checked;
    if (HasFailure() || before + n > slow.num_operations()) break;
  }
  EXPECT_GT(pruned, 0);
}

TEST_F(LedgerTest, SkippedRowsAreInTheIntent) {
  auto ledger = Create();
  FinishedPart part = Finished(*ledger, 0, "row\n", {1, 0, 2});
  part.committed.skipped_rows = "\x81";
  ASSERT_TRUE(ledger->PublishParts({part}).ok());
  const PartIntents intents = Load()->Intents().ValueOrDie();
  const CommittedPart* const intent = FindIntent(intents, 0, part.committed);
  ASSERT_NE(intent, nullptr);
  EXPECT_EQ(intent->skipped_rows, "\x81");
}

TEST_F(LedgerTest, TheOutputFolderHoldsPartsAlone) {
  auto ledger = Create();
  ASSERT_TRUE(ledger->PublishParts({Finished(*ledger, 0, "row\n", {1, 0, 0})}).ok());
  ASSERT_TRUE(ledger->WriteSuccess({{"ok", 1}}).ok());
  const auto files = storage_->List(layout_.output);
  ASSERT_TRUE(files.ok());
  ASSERT_EQ(files->size(), 1U);
  EXPECT_EQ(files->front().name, "part-000000.jsonl");
}

TEST_F(LedgerTest, RefusesAForeignFolderAndADamagedPlan) {
  Write((folder_ / "out" / "notes.txt").string(), "mine");
  EXPECT_TRUE(IsConflict(Ledger::Load(*storage_, layout_).status()));
  std::filesystem::remove_all(folder_ / "out");
  auto ledger = Create();
  Write(layout_.state + "/" + ledger->job()["plan"].get<std::string>(), "{}");
  const Status damaged = Ledger::Load(*storage_, layout_).status();
  EXPECT_TRUE(IsConflict(damaged));
  EXPECT_NE(damaged.message().find("damaged"), std::string::npos) << damaged;
}

TEST_F(LedgerTest, ASuffixInThePathMeansOneFileWithPartsInTheState) {
  const OutputLayout single = OutputLayout::Of("/data/x.parquet", ".parquet");
  EXPECT_TRUE(single.is_single_file);
  EXPECT_EQ(single.PartPath(12), "/data/x.parquet.millstream/parts/part-000012.parquet");
}

// On a disk, and on a store that tells versions apart.
TEST(SingleFileTest, WhatTheJobDidNotPublishIsLeftAsItIs) {
  const std::string folder = testing::TempDir() + "single_file";
  std::filesystem::remove_all(folder);
  const auto clock = std::make_shared<SimulatedClock>(1);
  ObjectStorageOptions options;
  options.root = "s3://b/";
  options.clock = clock;
  const std::unique_ptr<Storage> storages[] = {
      MakeLocalStorage(), MakeObjectStorage(std::make_shared<SimulatedStore>(clock, 1), options)
  };
  for (const auto& storage : storages) {
    const bool is_disk = storage == storages[0];
    OutputLayout layout = OutputLayout::Of((is_disk ? folder : "s3://b") + "/x.txt", ".txt");
    layout.errors = layout.output + ".failed.txt";
    const auto created = Ledger::Create(*storage, layout, {{"id", "a"}}, {{"splits", 1}});
    ASSERT_TRUE(created.ok()) << created.status();
    const auto publish = [&](const std::string& text) -> Status {
      // As another driver each time, which knows what the ones before wrote down.
      MS_ASSIGN_OR_RETURN(const auto ledger, Ledger::Load(*storage, layout));
      MS_RETURN_NOT_OK(ledger->Begin({{"pid", 1}}).status());
      const auto file = [&](const std::string& name) -> Result<FinishedFile> {
        const std::string bytes = name + text;
        FinishedFile finished{ledger->TemporaryPath(name), {HashOf(bytes), bytes.size()}};
        MS_ASSIGN_OR_RETURN(const auto stream, storage->Create(finished.path));
        MS_RETURN_NOT_OK(stream->Write(bytes));
        MS_RETURN_NOT_OK(stream->Close());
        return finished;
      };
      MS_ASSIGN_OR_RETURN(const FinishedFile output, file("o"));
      MS_ASSIGN_OR_RETURN(const FinishedFile errors, file("e"));
      return ledger->PublishOutput(output, errors);
    };
    const auto exchange = [&](const std::string& path, const std::string& text) {
      ASSERT_TRUE(storage->Remove(path).ok());
      ASSERT_TRUE(PublishBytes(*storage, path, text).ok());
    };
    ASSERT_TRUE(PublishBytes(*storage, layout.errors, "theirs").ok());
    EXPECT_TRUE(IsConflict(publish(" 1")));
    EXPECT_EQ(*storage->Read(layout.errors, 100), "theirs");
    EXPECT_FALSE(*FileExists(*storage, layout.output));
    ASSERT_TRUE(storage->Remove(layout.errors).ok());
    for (const char* text : {" 1", " 2", " 2", " 10"}) {
      ASSERT_TRUE(publish(text).ok()) << publish(text);
      EXPECT_EQ(*storage->Read(layout.output, 100), "o" + std::string(text));
      EXPECT_EQ(*storage->Read(layout.errors, 100), "e" + std::string(text));
    }
    for (const std::string& path : {layout.output, layout.errors}) {
      for (const char* text : {"e 9", "a longer one", ""}) {
        exchange(path, text);
        EXPECT_TRUE(IsConflict(publish(" 3"))) << path << " " << text;
        EXPECT_EQ(*storage->Read(path, 100), text);
      }
      exchange(path, (path == layout.output ? "o" : "e") + std::string(" 1"));  // of before
      EXPECT_TRUE(publish(" 4").ok());
    }
  }
}

// A job that was published by a version that wrote no marks down.
TEST(SingleFileTest, AnyFileMayBeThatOfAJobOfBefore) {
  const std::string folder = testing::TempDir() + "single_file_before";
  std::filesystem::remove_all(folder);
  const auto storage = MakeLocalStorage();
  const OutputLayout layout = OutputLayout::Of(folder + "/x.txt", ".txt");
  ASSERT_TRUE(Ledger::Create(*storage, layout, {{"id", "a"}}, {{"splits", 1}}).ok());
  ASSERT_TRUE(PublishBytes(*storage, layout.output, "of before").ok());
  std::filesystem::create_directories(layout.parts);
  for (int driver = 0; driver < 3; ++driver) {
    const auto ledger = *Ledger::Load(*storage, layout);
    ASSERT_TRUE(ledger->Begin({{"pid", 1}}).ok());
    if (driver == 0) {
      ASSERT_TRUE(ledger->WriteSuccess({{"ok", 1}}).ok());
      continue;
    }
    EXPECT_TRUE(ledger->CheckOutput().ok());
    const FinishedFile file{ledger->TemporaryPath("x"), {HashOf("now"), 3}};
    ASSERT_TRUE((*storage->Create(file.path))->Write("now").ok());
    const Status published = ledger->PublishOutput(file, std::nullopt);
    ASSERT_TRUE(published.ok()) << published;
    EXPECT_EQ(*storage->Read(layout.output, 100), "now");
  }
}

// Its driver drops it, as another worker has published the split.
TEST(RowLogTest, ALogThatIsDroppedWhileItIsLoadedHasNoRows) {
  const TempFolder folder;
  const auto disk = std::make_shared<FaultyDisk>(MakeLocalDisk());
  const auto storage = MakeDiskStorage(disk);
  std::int64_t num_calls = 0;
  for (std::int64_t call = 0; call <= num_calls; ++call) {  // first without harm
    for (const std::int64_t writer : {2, 3}) {
      RowLog log(*storage, folder / "rows", 1, writer);
      ASSERT_TRUE(log.Append(4, LogKind::kResult, "key", {}, "answer").ok());
      ASSERT_TRUE(log.Sync().ok());
    }
    const std::int64_t before = disk->num_calls();
    disk->CallAt(call, [&] { std::filesystem::remove_all(folder / "rows/000004"); });
    const auto rows = RowLog::Load(*storage, folder / "rows", 4);
    ASSERT_TRUE(rows.ok()) << call << ": " << rows.status();
    EXPECT_TRUE(rows->damage.empty());
    if (call == 0) num_calls = disk->num_calls() - before;
    std::filesystem::remove_all(folder / "rows/000004");
  }
  EXPECT_GT(num_calls, 4);
}

// A worker that finds another's answers in the log says that they are durable: the other may have
// died before it made them so.
TEST(RowLogTest, WhatAnotherWorkerLoggedIsDurableOnceAWorkerSyncsItsSplit) {
  const auto disk = std::make_shared<SimulatedDisk>();
  const std::unique_ptr<Storage> storage = MakeDiskStorage(disk);
  const OutputLayout layout = OutputLayout::Of("/out", ".jsonl");
  auto driver = Ledger::Create(*storage, layout, {{"id", "a"}}, {{"splits", 1}});
  ASSERT_TRUE(driver.ok() && (*driver)->Begin({{"pid", 1}}).ok());
  const auto join = [&](std::int64_t number) {
    auto ledger = Ledger::Load(*storage, layout).ValueOrDie();
    ledger->Join((*driver)->epoch(), number);
    return ledger;
  };
  const auto dead = join(2), alive = join(3);
  ASSERT_TRUE(dead->rows().Append(0, LogKind::kResult, "key", {}, "answer").ok());
  ASSERT_TRUE(alive->SyncRows(0).ok());
  ASSERT_TRUE(alive->SyncRows(7).ok());  // nobody has logged anything of it
  disk->Restart(Crash::kPowerNothing);
  const auto found = Ledger::Load(*storage, layout).ValueOrDie()->LoadRows(0);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->by_key.contains("key"));
}

// On an object store, where a file that grows is many objects: a driver that was taken over removes
// the split's log, and with it the beginning of its successor's, which goes on.
TEST(RowLogTest, ABeginningThatIsMissingIsDamageAndNoEnd) {
  const auto clock = std::make_shared<SimulatedClock>(1);
  const auto store = std::make_shared<SimulatedStore>(clock, 1);
  ObjectStorageOptions options;
  options.root = "s3://b/";
  options.clock = clock;
  const auto storage = MakeObjectStorage(store, options);
  RowLog older(*storage, "s3://b/rows", 1, 1), newer(*storage, "s3://b/rows", 2, 1);
  const auto add = [](RowLog& log, const std::string& key) {
    return log.Append(0, LogKind::kResult, key, {}, "answer").ok() && log.Sync(0).ok();
  };
  ASSERT_TRUE(add(older, "a") && add(newer, "b"));
  ASSERT_TRUE(older.Drop(0).ok());
  ASSERT_TRUE(add(newer, "c"));
  RowLog newest(*storage, "s3://b/rows", 3, 1);
  ASSERT_TRUE(add(newest, "d"));
  const auto loaded = RowLog::Load(*storage, "s3://b/rows", 0);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_TRUE(loaded->by_key.contains("d"));
  ASSERT_EQ(loaded->damage.size(), 1U);
  EXPECT_NE(loaded->damage[0].find("are computed again"), std::string::npos) << loaded->damage[0];
}

TEST(RowLogTest, WhatComesAfterItWasClosedGoesToAnotherFile) {
  const TempFolder folder;
  const auto storage = MakeLocalStorage();
  RowLog log(*storage, folder / "rows", 1, 2);
  const auto add = [&log](const std::string& key) {
    return log.Append(0, LogKind::kResult, key, {}, "answer").ok();
  };
  log.Close(0);
  ASSERT_TRUE(add("a"));
  log.Close(0);  // not yet durable
  ASSERT_TRUE(add("b") && log.Sync(0).ok());
  EXPECT_EQ(storage->List(folder / "rows/000000")->size(), 1U);
  log.Close(0);
  ASSERT_TRUE(log.Sync().ok() && add("c") && log.Sync().ok());
  EXPECT_EQ(storage->List(folder / "rows/000000")->size(), 2U);
  const auto loaded = RowLog::Load(*storage, folder / "rows", 0);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->by_key.size(), 3U);
  EXPECT_TRUE(loaded->damage.empty());
}

}  // namespace
}  // namespace millstream
