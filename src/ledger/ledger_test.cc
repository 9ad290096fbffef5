// SPDX-License-Identifier: Apache-2.0
#include "ledger/ledger.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

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
    std::filesystem::create_directories(folder_);
    layout_ = OutputLayout::Of((folder_ / "out").string(), ".jsonl");
    storage_ = MakeLocalStorage();
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
    Write(ledger.TemporaryPath(split), bytes);
    return {
        split, ledger.TemporaryPath(split), {}, {{HashOf(bytes), bytes.size()}, counts, {}, {}}
    };
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
  EXPECT_FALSE(std::filesystem::exists(ledger->TemporaryPath(1)));
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
  const Status published = ledger->PublishParts({Finished(*ledger, 0, "row\n", {1, 0, 0})});
  EXPECT_TRUE(IsConflict(published)) << published;
  EXPECT_EQ(*storage_->Read(layout_.PartPath(0), 100), "foreign\n");
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

}  // namespace
}  // namespace millstream
