// SPDX-License-Identifier: Apache-2.0
#include "job/held_leases.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

using std::chrono::milliseconds;

class HeldLeasesTest : public testing::Test {
 protected:
  void Make(bool divides) {
    splits_.resize(3);
    for (std::size_t i = 0; i < splits_.size(); ++i) {
      splits_[i].number = static_cast<std::int64_t>(i);
      splits_[i].num_rows = kSplitRows;
    }
    HeldLeasesOptions options;
    options.divides = divides;
    options.room = [this] { return room_; };
    options.now = [this] { return now_; };
    held_.emplace(splits_, options);
  }

  WorkerReport Report(std::int64_t rows_finished = 0) {
    WorkerReport report;
    report.rows_finished = rows_finished;
    held_->Fill(report);
    return report;
  }
  // Reports and is answered.
  WorkerReport Hear(const WorkerOrders& orders, std::int64_t rows_finished = 0) {
    const WorkerReport report = Report(rows_finished);
    held_->Apply(report, orders);
    return report;
  }
  static WorkerOrders Take(std::vector<Lease> leases) {
    WorkerOrders orders;
    orders.take = std::move(leases);
    return orders;
  }
  // The next piece that the run gets; none if it would wait.
  std::optional<Piece> Next() {
    std::stop_source stop;
    stop.request_stop();
    const auto pieces = held_->Next(1, stop.get_token());
    if (!pieces.ok() || pieces->empty()) return std::nullopt;
    EXPECT_EQ(pieces->size(), 1U);
    return pieces->front();
  }
  static RowRef Row(const Piece& piece, std::int64_t index) {
    return {{}, piece.split.number, index, piece.number};
  }
  void BeginTo(const Piece& piece, std::int64_t end) {
    for (std::int64_t row = piece.begin; row < end; ++row) held_->Begin(Row(piece, row));
  }

  static constexpr std::int64_t kSplitRows = 200'000;
  std::vector<Split> splits_;
  std::int64_t room_ = 0;
  HeldLeases::Time now_{milliseconds(1'000'000)};
  std::optional<HeldLeases> held_;
};

TEST_F(HeldLeasesTest, LeasesAreGivenOutInOrderAndSaidToBeBegunAsTheirRowsAre) {
  Make(true);
  Hear(Take({{9, {1, 0, kSplitRows}}, {7, {0, 5, 50}}}));
  const auto first = Next(), second = Next();
  EXPECT_EQ(first->number, 7);
  EXPECT_EQ(first->begin, 5);
  EXPECT_EQ(first->end, 50);
  EXPECT_EQ(second->number, 9);
  EXPECT_FALSE(Next());
  EXPECT_TRUE(held_->Begin(Row(*first, 5)));
  EXPECT_TRUE(held_->Begin(Row(*first, 8)));  // those between left before the engine
  const WorkerReport report = Report();
  ASSERT_EQ(report.held.size(), 2U);
  EXPECT_EQ(report.held[0].begun, 9);
  EXPECT_EQ(report.held[1].begun, 0);
}

TEST_F(HeldLeasesTest, ALeaseIsShortenedToWhatIsBegunAtMost) {
  Make(true);
  Hear(Take({{1, {0, 0, 40}}}));
  const auto piece = Next();
  BeginTo(*piece, 10);
  WorkerOrders shorten;
  shorten.shorten = {{1, {0, 0, 20}}};
  Hear(shorten);
  EXPECT_EQ(held_->EndOf(1), 20);
  shorten.shorten = {{1, {0, 0, 3}}};
  Hear(shorten);
  EXPECT_EQ(held_->EndOf(1), 10);
  EXPECT_FALSE(held_->Begin(Row(*piece, 10)));
  EXPECT_EQ(Report().held[0].lease.range.end, 10);
  EXPECT_FALSE(held_->NoteEnd(*piece));
  ASSERT_EQ(held_->Finished().size(), 1U);
  EXPECT_EQ(held_->Finished()[0].range, (RowRange{0, 0, 10}));
  EXPECT_EQ(Report().held.size(), 1U);  // until it is durable
  held_->Drop(held_->Finished());
  EXPECT_TRUE(Report().held.empty());
}

TEST_F(HeldLeasesTest, RowsThatLeaveBeforeTheEngineAreNoneToBegin) {
  Make(true);
  room_ = 100;
  EXPECT_EQ(Hear(Take({{1, {0, 0, 4000}}})).wants_rows, 100);
  const auto piece = Next();
  EXPECT_EQ(Report().wants_rows, 0);
  std::vector<RowRef> filtered;
  for (std::int64_t row = 10; row < 4000; ++row) filtered.push_back(Row(*piece, row));
  held_->NoteFinished(filtered);
  EXPECT_EQ(Report().wants_rows, 90);
  BeginTo(*piece, 10);
  held_->NoteFinished({Row(*piece, 0)});
  EXPECT_EQ(Report().wants_rows, 109);  // nine are under way
  WorkerOrders shorten;
  shorten.shorten = {{1, {0, 0, 20}}};
  Hear(shorten);
  held_->Begin(Row(*piece, 15));
  EXPECT_EQ(Report().wants_rows, 110);
}

TEST_F(HeldLeasesTest, AnEndedLeaseIsHeldNoLongerThoughItsRowsAreUnderWay) {
  Make(true);
  Hear(Take({{1, {0, 0, kSplitRows}}, {2, {1, 0, kSplitRows}}}));
  const auto piece = Next();
  BeginTo(*piece, 10);
  WorkerOrders end;
  end.end = {1, 2};
  Hear(end);
  EXPECT_TRUE(Report().held.empty());
  EXPECT_FALSE(Next());
  EXPECT_FALSE(held_->Begin(Row(*piece, 10)));
  held_->NoteFinished({Row(*piece, 0)});
  EXPECT_FALSE(held_->NoteEnd(*piece));
  EXPECT_TRUE(held_->Finished().empty());
}

TEST_F(HeldLeasesTest, AWholeSplitWhoseRowsAreFinishedStaysWholeAndIsHeldUntilItIsPublished) {
  Make(true);
  Hear(Take({{1, {2, 0, kSplitRows}}}));
  const auto piece = Next();
  EXPECT_TRUE(held_->NoteEnd(*piece));  // none of its rows came to the engine
  WorkerOrders shorten;
  shorten.shorten = {{1, {2, 0, 100}}};
  Hear(shorten);
  held_->NotePart(*piece);
  now_ += milliseconds(700);
  WorkerReport report = Report();
  ASSERT_EQ(report.held.size(), 1U);
  EXPECT_EQ(report.held[0].begun, kSplitRows);
  EXPECT_EQ(report.held[0].oldest, milliseconds(700));
  EXPECT_TRUE(held_->Finished().empty());
  held_->NotePublished({2});
  EXPECT_TRUE(Report().held.empty());
}

TEST_F(HeldLeasesTest, WhatIsNotDividedIsBegunWhenItIsGivenOut) {
  Make(false);
  Hear(Take({{1, {0, 0, kSplitRows}}, {2, {1, 0, kSplitRows}}}));
  Next();
  const WorkerReport report = Report();
  EXPECT_EQ(report.held[0].begun, kSplitRows);
  EXPECT_EQ(report.held[1].begun, 0);
}

TEST_F(HeldLeasesTest, AllThatIsNotBegunIsGivenBackAtOnce) {
  Make(true);
  room_ = 100;
  Hear(Take({{1, {0, 0, 40}}, {2, {1, 0, 40}}}));
  const auto piece = Next();
  BeginTo(*piece, 10);
  held_->GiveBack();
  const WorkerReport report = Report();
  EXPECT_EQ(report.held[0].lease.range, (RowRange{0, 0, 10}));
  EXPECT_EQ(report.held[1].lease.range, (RowRange{1, 0, 0}));
  EXPECT_EQ(report.wants_rows, 0);
  const auto next = held_->Next(1, {});
  ASSERT_TRUE(next.ok());
  EXPECT_TRUE(next->empty());
}

// What it holds and wants is enough for two intervals at the rate that it has, and no more.
TEST_F(HeldLeasesTest, ItWantsWhatItDoesInTwoReports) {
  for (const std::int64_t rate : {5, 25'000}) {
    Make(true);
    room_ = 64;
    const WorkerReport first = Report();
    EXPECT_EQ(first.wants_rows, 64);
    room_ = 0;
    held_->Apply(first, Take({{1, {0, 0, kSplitRows}}, {2, {1, 0, kSplitRows}}}));
    std::int64_t done = 0, wants = 0, left = 0;
    std::optional<Piece> piece;
    for (int second = 0; second < 40; ++second) {
      for (std::int64_t row = 0; row < rate; ++row) {
        const std::int64_t index = done % kSplitRows;
        if (index == 0) piece = Next();
        if (!piece) break;
        held_->Begin(Row(*piece, index));
        held_->NoteFinished({Row(*piece, index)});
        ++done;
      }
      now_ += std::chrono::seconds(1);
      const WorkerReport report = Report(done);
      left = 0;
      for (const HeldLease& held : report.held) left += held.lease.range.end - held.begun;
      wants = report.wants_rows;
      if (left == 0) break;
    }
    if (rate == 5) {
      EXPECT_EQ(wants, 0);
    } else {
      EXPECT_EQ(left, 0);  // after 400,000 rows
      EXPECT_NEAR(static_cast<double>(wants), 2.0 * 25'000, 1'000);
    }
  }
}

TEST_F(HeldLeasesTest, ItSaysHowLongRowsTakeAndHowLongTheOldestIsUnderWay) {
  Make(true);
  Hear(Take({{1, {0, 0, kSplitRows}}}));
  const auto piece = Next();
  EXPECT_EQ(Report().row_time, milliseconds(0));
  EXPECT_EQ(Report().held[0].oldest, milliseconds(0));
  BeginTo(*piece, 100);
  now_ += milliseconds(3000);
  for (int row = 1; row < 100; ++row) held_->NoteFinished({Row(*piece, row)});
  now_ += milliseconds(60'000);
  const WorkerReport report = Report();
  EXPECT_EQ(report.held[0].oldest, milliseconds(63'000));
  EXPECT_GE(report.row_time, milliseconds(3000));
  EXPECT_LE(report.row_time, milliseconds(6000));
}

TEST_F(HeldLeasesTest, PartsAreHeldBackUntilNoMoreRowsAreToBeHad) {
  Make(true);
  Hear(Take({{1, {0, 0, kSplitRows}}, {2, {1, 0, kSplitRows}}}));
  const auto first = Next(), second = Next();
  EXPECT_TRUE(held_->NoteEnd(*first));
  held_->NotePart(*first);
  EXPECT_FALSE(held_->WaitForEnds({}));
  EXPECT_TRUE(held_->NoteEnd(*second));
  held_->NotePart(*second);
  EXPECT_FALSE(held_->WaitForEnds({}));
  EXPECT_GT(Hear({}).wants_rows, 0);  // and gets nothing
  EXPECT_TRUE(held_->WaitForEnds({}));
}

}  // namespace
}  // namespace millstream
