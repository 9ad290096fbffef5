// SPDX-License-Identifier: Apache-2.0
#include "job/open_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace millstream {
namespace {

const Risk kSuspect{0, true};

TEST(OpenRowsTest, LendsWholeSplitsInOrder) {
  OpenRows rows({{7, 10}, {3, 20}});
  EXPECT_EQ(rows.Take()->range, (RowRange{3, 0, 20}));
  EXPECT_EQ(rows.Take()->range, (RowRange{7, 0, 10}));
  EXPECT_FALSE(rows.Take());
}

TEST(OpenRowsTest, WhatIsReturnedComesBeforeLaterSplitsAndSuspectsByThemselves) {
  OpenRows rows({{1, 10}, {2, 10}});
  ASSERT_TRUE(rows.Take());
  rows.Return({1, 4, 6}, {1, false});
  rows.Return({1, 8, 9}, kSuspect);
  const auto first = rows.Take();
  EXPECT_EQ(first->range, (RowRange{1, 4, 6}));
  EXPECT_EQ(first->risk, (Risk{1, false}));
  EXPECT_EQ(rows.Take()->range.split, 2);
  EXPECT_FALSE(rows.Take());
  EXPECT_EQ(rows.TakeSuspect()->range, (RowRange{1, 8, 9}));
  EXPECT_FALSE(rows.TakeSuspect());
}

TEST(OpenRowsTest, DoneRowsAreNotLentAgain) {
  OpenRows rows({{1, 10}});
  ASSERT_TRUE(rows.Take());
  EXPECT_TRUE(rows.NoteDone({1, 0, 3}));
  EXPECT_TRUE(rows.NoteDone({1, 8, 10}));
  EXPECT_FALSE(rows.NoteDone({1, 1, 3}));  // no news
  rows.Return({1, 2, 10}, {});
  EXPECT_TRUE(rows.NoteDone({1, 5, 6}));  // while nobody holds them
  EXPECT_EQ(rows.Take()->range, (RowRange{1, 3, 5}));
  EXPECT_EQ(rows.Take()->range, (RowRange{1, 6, 8}));
  EXPECT_FALSE(rows.Take());
}

TEST(OpenRowsTest, AWholeSplitStaysWholeThoughSomeOfItIsDone) {
  OpenRows rows({{1, 10}});
  EXPECT_TRUE(rows.NoteDone({1, 0, 3}));
  EXPECT_EQ(rows.CountNotDone({1, 0, 10}), 7);
  EXPECT_EQ(rows.Take()->range, (RowRange{1, 0, 10}));
}

TEST(OpenRowsTest, ASplitWithAllAnswersIsOfferedOnceAsAWhole) {
  OpenRows rows({{1, 10}, {2, 0}});
  EXPECT_EQ(rows.TakeComplete(), (RowRange{2, 0, 0}));  // a split without rows has all
  ASSERT_TRUE(rows.Take());
  rows.NoteDone({1, 0, 10});
  EXPECT_TRUE(rows.IsComplete(1));
  EXPECT_FALSE(rows.TakeComplete());  // who holds it publishes it
  rows.Return({1, 0, 10}, {});
  EXPECT_FALSE(rows.Take());
  EXPECT_EQ(rows.TakeComplete(), (RowRange{1, 0, 10}));
  EXPECT_FALSE(rows.TakeComplete());
}

TEST(OpenRowsTest, ClaimsWhatNobodyHoldsFromTheFirstRowThatIsNotDone) {
  OpenRows rows({{1, 100}});
  rows.NoteDone({1, 10, 20});
  EXPECT_EQ(rows.Claim({1, 10, 50}), (RowRange{1, 20, 50}));
  EXPECT_FALSE(rows.Claim({1, 30, 60}));                    // its head is held
  EXPECT_EQ(rows.Claim({1, 0, 60}), (RowRange{1, 0, 10}));  // its tail is
  EXPECT_EQ(rows.Claim({1, 60, 100}), (RowRange{1, 60, 100}));
  EXPECT_EQ(rows.Take()->range, (RowRange{1, 50, 60}));
  EXPECT_FALSE(rows.Claim({2, 0, 10}));  // no such split
}

TEST(OpenRowsTest, ClaimsAcrossRowsThatAreDone) {
  OpenRows rows({{1, 100}});
  ASSERT_TRUE(rows.Take());
  rows.Return({1, 10, 20}, {1, false});
  rows.Return({1, 20, 40}, kSuspect);
  rows.NoteDone({1, 40, 60});
  rows.Return({1, 60, 70}, {});
  EXPECT_EQ(rows.Claim({1, 10, 100}), (RowRange{1, 10, 70}));
  EXPECT_FALSE(rows.Take());
  EXPECT_FALSE(rows.TakeSuspect());
}

TEST(OpenRowsTest, AClaimOfAllThatIsLeftOfASplitIsAWhole) {
  OpenRows rows({{1, 100}});
  ASSERT_TRUE(rows.Take());
  rows.NoteDone({1, 0, 30});
  rows.Return({1, 30, 50}, {});
  rows.Return({1, 50, 100}, {});
  EXPECT_EQ(rows.Claim({1, 0, 100}), (RowRange{1, 0, 100}));
  rows.Return({1, 0, 100}, {});
  rows.NoteDone({1, 30, 100});
  rows.Return({1, 0, 100}, {});
  EXPECT_EQ(rows.Claim({1, 0, 100}), (RowRange{1, 0, 100}));  // to be published
  EXPECT_FALSE(rows.TakeComplete());
}

TEST(OpenRowsTest, AClosedSplitIsForgotten) {
  OpenRows rows({{1, 10}, {2, 10}});
  rows.Close(1);
  EXPECT_EQ(rows.num_splits(), 1);
  EXPECT_FALSE(rows.IsOpen(1));
  EXPECT_FALSE(rows.NoteDone({1, 0, 10}));
  rows.Return({1, 0, 10}, {});
  EXPECT_EQ(rows.Take()->range.split, 2);
  EXPECT_FALSE(rows.Take());
}

// Each row is marked in an array: done, or held, or free.
class RandomOpenRowsTest : public testing::TestWithParam<unsigned> {
 protected:
  static constexpr std::int64_t kRows = 40;

  RowRange AnyRange() {
    std::uniform_int_distribution<std::int64_t> any(0, kRows);
    const std::int64_t one = any(random_), other = any(random_);
    return {5, std::min(one, other), std::max(one, other)};
  }
  bool AllDone(const RowRange& range) const {
    return std::all_of(done_.begin() + range.begin, done_.begin() + range.end, [](bool is) {
      return is;
    });
  }
  void Hold(const RowRange& range) {
    for (std::int64_t row = range.begin; row < range.end; ++row) {
      const auto place = static_cast<std::size_t>(row);
      EXPECT_TRUE(done_[place] || !held_[place]) << row;
      held_[place] = true;
    }
    leases_.push_back(range);
  }
  void CheckRanges() {
    const RowRange range = AnyRange(), rest = rows_.NotDone(range);
    EXPECT_EQ(rest.size() == 0, AllDone(range));
    if (rest.size() == 0) return;
    EXPECT_TRUE(AllDone({5, range.begin, rest.begin}) && AllDone({5, rest.end, range.end}));
    EXPECT_FALSE(done_[static_cast<std::size_t>(rest.begin)]);
    EXPECT_FALSE(done_[static_cast<std::size_t>(rest.end) - 1]);
  }

  std::mt19937 random_{GetParam()};
  OpenRows rows_{{{4, 3}, {5, kRows}, {6, 3}}};
  std::vector<bool> done_ = std::vector<bool>(kRows), held_ = done_;
  std::vector<RowRange> leases_;
};

TEST_P(RandomOpenRowsTest, NoRowIsForgottenOrLentTwice) {
  rows_.Close(4);
  Hold(rows_.Take()->range);
  for (int step = 0; step < 60; ++step) {
    CheckRanges();
    const auto action = std::uniform_int_distribution<int>(0, 5)(random_);
    if (action == 0) {
      RowRange range = AnyRange();
      range.end = std::min(range.end, range.begin + 4);
      EXPECT_EQ(rows_.NoteDone(range), !AllDone(range));
      std::fill(done_.begin() + range.begin, done_.begin() + range.end, true);
    } else if (action == 1 && !leases_.empty()) {
      const RowRange range = leases_.back();
      leases_.pop_back();
      std::fill(held_.begin() + range.begin, held_.begin() + range.end, false);
      rows_.Return(range, {0, random_() % 2 == 0});
    } else if (action == 2 && !leases_.empty()) {  // only a part
      RowRange& range = leases_.front();
      const RowRange rest{5, range.begin + range.size() / 2, range.end};
      range.end = rest.begin;
      std::fill(held_.begin() + rest.begin, held_.begin() + rest.end, false);
      rows_.Return(rest, {});
    } else if (action == 3) {
      if (const auto free = random_() % 2 == 0 ? rows_.Take() : rows_.TakeSuspect()) {
        if (free->range.split == 5) Hold(free->range);
      }
    } else if (const auto claimed = rows_.Claim(AnyRange())) {
      EXPECT_FALSE(AllDone(*claimed));
      Hold(*claimed);
    }
  }
  while (const auto free = rows_.Take()) {
    if (free->range.split == 5) Hold(free->range);
  }
  while (const auto free = rows_.TakeSuspect()) Hold(free->range);
  for (std::size_t row = 0; row < kRows; ++row) EXPECT_TRUE(done_[row] || held_[row]) << row;
  const auto left = std::count(done_.begin(), done_.end(), false);
  EXPECT_EQ(rows_.CountNotDone({5, 0, kRows}), left);
  EXPECT_EQ(rows_.rows_left(), left + 3);  // and those of the split that nothing was done of
  rows_.Close(5);
  EXPECT_EQ(rows_.rows_left(), 3);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOpenRowsTest, testing::Range(0U, 40U));

}  // namespace
}  // namespace millstream
