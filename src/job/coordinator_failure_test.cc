// SPDX-License-Identifier: Apache-2.0
// Workers that die, drain and wake again, coordinators that begin anew, and rows that kill.
#include <gtest/gtest.h>

#include <vector>

#include "job/coordinator.h"
#include "job/coordinator_testing.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class CoordinatorFailureTest : public CoordinatorTest {
 protected:
  // It says that a row has been under way for so long.
  void StandStill(Coordinator& coordinator, Puppet& worker, seconds time) {
    worker.Begin();
    worker.held.begin()->second.oldest = time;
    worker.Tell(coordinator, now_);
  }
  // One worker after the other gets the next rows and dies of it.
  std::vector<RowRange> Kill(Coordinator& coordinator, RowRange& lent) {
    const Puppet worker = Join(coordinator, ++last_worker_, kRows);
    EXPECT_EQ(worker.held.size(), 1U);
    if (!worker.held.empty()) lent = worker.ranges()[0];
    return coordinator.Die(last_worker_, /*may_be_a_row=*/true);
  }

  std::int64_t last_worker_ = 100;
};

TEST_F(CoordinatorFailureTest, TheLeasesOfADeadWorkerAreLentToOthers) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  worker.report.done = {{0, 0, 100}};
  worker.Tell(coordinator, now_);
  EXPECT_TRUE(coordinator.Die(1, false).empty());
  EXPECT_EQ(coordinator.num_workers(), 0);
  EXPECT_EQ(coordinator.num_leases(), 0);
  EXPECT_TRUE(coordinator.Die(1, false).empty());                     // it may be said twice
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 0, kRows}}));  // still a whole
}

TEST_F(CoordinatorFailureTest, OnlyRowsThatAreNotDoneOfADividedSplitAreLentAgain) {
  Coordinator coordinator = Make(1);
  Puppet victim = Join(coordinator, 1);
  const Puppet thief = Join(coordinator, 2);
  victim.report.done = {{0, 0, 100}};
  victim.Tell(coordinator, now_);
  EXPECT_TRUE(coordinator.Die(1, false).empty());
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 100, thief.ranges()[0].begin}}));
}

TEST_F(CoordinatorFailureTest, AWorkerThatIsNotHeardIsTakenForDead) {
  Coordinator coordinator = Make(1);
  EXPECT_FALSE(coordinator.NextTime());
  Puppet worker = Join(coordinator, 1);
  now_ += seconds(10);
  worker.Tell(coordinator, now_);
  EXPECT_EQ(coordinator.NextTime(), now_ + seconds(15));
  EXPECT_TRUE(coordinator.Expire(now_ + milliseconds(14'999)).empty());
  EXPECT_EQ(coordinator.num_workers(), 1);
  EXPECT_TRUE(coordinator.Expire(now_ + seconds(15)).empty());
  EXPECT_EQ(coordinator.num_workers(), 0);
  EXPECT_FALSE(coordinator.NextTime());
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 0, kRows}}));
}

TEST_F(CoordinatorFailureTest, AWorkerThatWakesKeepsWhatNobodyHasTaken) {
  Coordinator coordinator = Make(2);
  Puppet zombie = Join(coordinator, 1, 2 * kRows);
  zombie.Begin(10);
  EXPECT_TRUE(coordinator.Expire(now_ + seconds(15)).empty());
  const Puppet other = Join(coordinator, 2);
  EXPECT_EQ(other.ranges(), (Ranges{{0, 0, kRows}}));
  const WorkerOrders orders = zombie.Tell(coordinator, now_);
  EXPECT_EQ(orders.end.size(), 1U);
  EXPECT_EQ(zombie.ranges(), (Ranges{{1, 0, kRows}}));
  EXPECT_EQ(coordinator.num_leases(), 2);
}

TEST_F(CoordinatorFailureTest, WhatAWorkerDidWhenItWasTakenForDeadCounts) {
  Coordinator coordinator = Make(2);
  Puppet zombie = Join(coordinator, 1, 2 * kRows);
  EXPECT_TRUE(coordinator.Expire(now_ + seconds(15)).empty());
  Puppet other = Join(coordinator, 2);
  while (!zombie.held.empty()) zombie.Finish(zombie.held.begin()->first, kRows);
  EXPECT_TRUE(zombie.Tell(coordinator, now_).is_over);
  EXPECT_EQ(other.Tell(coordinator, now_).end.size(), 1U);
}

TEST_F(CoordinatorFailureTest, WhatADeadWorkerSentBeforeCountsAsFarAsItIsDurable) {
  Coordinator coordinator = Make(2);
  Puppet worker = Join(coordinator, 1);
  EXPECT_TRUE(coordinator.Die(1, false).empty());
  worker.report.published = {1};
  worker.report.wants_rows = 1;
  const WorkerOrders orders = worker.Tell(coordinator, now_);
  EXPECT_TRUE(orders.take.empty());
  EXPECT_EQ(coordinator.num_workers(), 0);
  EXPECT_EQ(coordinator.splits_left(), 1);
  EXPECT_TRUE(coordinator.Expire(now_ + seconds(15)).empty());
  worker.Tell(coordinator, now_ + seconds(15));  // it lives after all
  EXPECT_EQ(coordinator.num_workers(), 1);
}

TEST_F(CoordinatorFailureTest, AWorkerThatLeavesIsForgottenWithWhatItHolds) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  worker.report.done = {{0, 0, 10}};
  worker.report.leaves = true;
  worker.Tell(coordinator, now_);
  EXPECT_EQ(coordinator.num_workers(), 0);
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 0, kRows}}));
}

TEST_F(CoordinatorFailureTest, ADrainingWorkerKeepsWhatItHasBegunAndGetsNoMore) {
  Coordinator coordinator = Make(3);
  Puppet worker = Join(coordinator, 1, kRows + 1);
  worker.Tell(coordinator, now_);
  worker.held.begin()->second.begun = 400;
  coordinator.Drain(1);
  coordinator.Drain(7);  // nobody
  const WorkerOrders orders = Ask(coordinator, worker);
  ASSERT_EQ(orders.shorten.size(), 1U);
  EXPECT_EQ(orders.end.size(), 1U);
  EXPECT_EQ(worker.ranges(), (Ranges{{0, 0, 400}}));
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 400, kRows}}));
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{1, 0, kRows}}));
  worker.Finish(worker.held.begin()->first, kRows);
  EXPECT_TRUE(Ask(coordinator, worker).take.empty());
}

TEST_F(CoordinatorFailureTest, ANewCoordinatorTakesOverTheLeasesOfTheLast) {
  Coordinator last = Make(3);
  Puppet first = Join(last, 1), second = Join(last, 2), thief = Join(last, 3);
  for (int i = 4; i < 6; ++i) Join(last, i);  // each holds something
  thief.Begin(50);
  first.Tell(last, now_);
  CoordinatorOptions options;
  options.epoch = 2;
  options.settle = seconds(5);
  Coordinator next = Make(3, options);
  Puppet joins = Join(next, 10);
  EXPECT_EQ(joins.ranges(), Ranges{});  // others may hold all of it
  for (Puppet* worker : {&first, &second, &thief}) {
    const Ranges ranges = worker->ranges();
    const WorkerOrders orders = worker->Tell(next, now_);
    EXPECT_TRUE(orders.take.empty() && orders.shorten.empty() && orders.end.empty());
    EXPECT_EQ(worker->ranges(), ranges);
  }
  EXPECT_EQ(next.num_leases(), 3);
  now_ += seconds(5);
  Ask(next, joins);
  ASSERT_EQ(joins.held.size(), 1U);
  EXPECT_GT(joins.held.begin()->first, thief.held.begin()->first);  // numbers never come again
}

TEST_F(CoordinatorFailureTest, ANewCoordinatorLearnsOfEachLeaseFromOneWorkerOnly) {
  CoordinatorOptions options;
  options.epoch = 2;
  Coordinator coordinator = Make(1, options);
  Puppet first(1), second(2);
  first.held[5] = {{5, {0, 0, 600}}, 10, {}};
  second.held[6] = {{6, {0, 400, kRows}}, 400, {}};
  first.Tell(coordinator, now_);
  EXPECT_EQ(second.Tell(coordinator, now_).end, (std::vector<std::int64_t>{6}));
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 600, kRows}}));
}

TEST_F(CoordinatorFailureTest, AnswersThatANewCoordinatorDoesNotKnowOfAreFoundBySomebody) {
  CoordinatorOptions options;
  options.epoch = 2;
  Coordinator coordinator = Make(1, options);
  Puppet worker(1);
  worker.held[5] = {{5, {0, 0, 600}}, 600, {}};
  worker.Tell(coordinator, now_);
  worker.held.clear();  // it told the last coordinator of the first 500
  worker.report.done = {{0, 500, 600}};
  EXPECT_EQ(worker.Tell(coordinator, now_).take.size(), 1U);
  worker.report.done = {{0, 0, 600}};
  EXPECT_EQ(worker.Tell(coordinator, now_).end.size(), 1U);
}

TEST_F(CoordinatorFailureTest, WhatStandsStillIsLentToASecondWorkerOnceNothingElseIsLeft) {
  Coordinator coordinator = Make(2);
  Puppet hangs = Join(coordinator, 1);
  StandStill(coordinator, hangs, seconds(11));
  EXPECT_EQ(Join(coordinator, 2, kRows).ranges(), (Ranges{{1, 0, kRows}}));
  EXPECT_TRUE(Ask(coordinator, hangs, kRows).take.empty());  // not to itself
  Puppet copies = Join(coordinator, 3);
  EXPECT_EQ(copies.ranges(), hangs.ranges());
  EXPECT_EQ(Join(coordinator, 4).ranges(), Ranges{});  // never a third
  copies.Finish(copies.held.begin()->first, kRows);
  copies.Tell(coordinator, now_);
  EXPECT_EQ(coordinator.splits_left(), 1);
  EXPECT_EQ(hangs.Tell(coordinator, now_).end.size(), 1U);  // the first is enough
}

TEST_F(CoordinatorFailureTest, ACopyOfPartOfASplitEndsWithTheFirstToBeDurable) {
  Coordinator coordinator = Make(1);
  Puppet hangs = Join(coordinator, 1), thief = Join(coordinator, 2);
  hangs.Tell(coordinator, now_);
  StandStill(coordinator, hangs, seconds(11));
  StandStill(coordinator, thief, seconds(5));
  Puppet copies = Join(coordinator, 3);
  EXPECT_EQ(copies.ranges(), hangs.ranges());
  hangs.Finish(hangs.held.begin()->first, kRows);
  hangs.Tell(coordinator, now_);
  EXPECT_EQ(copies.Tell(coordinator, now_).end.size(), 1U);
  EXPECT_EQ(coordinator.num_leases(), 1);
}

TEST_F(CoordinatorFailureTest, WhoGivesACopyBackLeavesTheOther) {
  Coordinator coordinator = Make(1);
  Puppet hangs = Join(coordinator, 1);
  StandStill(coordinator, hangs, seconds(11));
  Puppet copies = Join(coordinator, 2);
  coordinator.Drain(1);
  hangs.held.begin()->second.begun = 10;
  hangs.Tell(coordinator, now_);
  EXPECT_EQ(hangs.ranges(), (Ranges{{0, 0, kRows}}));  // nobody would get it sooner
  copies.held.begin()->second.lease.range.end = 500;
  EXPECT_EQ(copies.Tell(coordinator, now_).end.size(), 1U);
  EXPECT_EQ(coordinator.num_leases(), 1);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 505, kRows}}));  // it is one's alone again
}

TEST_F(CoordinatorFailureTest, ALeaseWithACopyEndsWhereTheCopyDoes) {
  Coordinator coordinator = Make(1);
  Puppet victim = Join(coordinator, 1), thief = Join(coordinator, 2);
  thief.report.done = {{0, 501, 600}};
  thief.Begin();
  thief.Tell(coordinator, now_);
  victim.held.begin()->second.begun = 501;
  victim.held.begin()->second.oldest = seconds(11);
  Puppet deaf = victim;
  deaf.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, 501}}));
  EXPECT_TRUE(coordinator.Die(2, false).empty());
  victim.report.number = deaf.report.number;
  victim.held.begin()->second.begun = 700;
  EXPECT_EQ(victim.Tell(coordinator, now_).shorten.size(), 1U);
  EXPECT_EQ(Join(coordinator, 4).ranges(), (Ranges{{0, 600, kRows}}));
}

TEST_F(CoordinatorFailureTest, NothingStandsStillThatTakesNotMuchLongerThanRowsDo) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  worker.report.row_time = seconds(20);
  StandStill(coordinator, worker, seconds(60));
  EXPECT_EQ(Join(coordinator, 2).ranges(), Ranges{});
  StandStill(coordinator, worker, seconds(61));
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, kRows}}));
}

TEST_F(CoordinatorFailureTest, TheLastOfTwoCopiesIsALeaseAsAnyOther) {
  Coordinator coordinator = Make(1);
  Puppet hangs = Join(coordinator, 1);
  StandStill(coordinator, hangs, seconds(11));
  Puppet copies = Join(coordinator, 2);
  EXPECT_TRUE(coordinator.Die(1, false).empty());
  EXPECT_EQ(coordinator.num_leases(), 1);
  copies.Tell(coordinator, now_);  // it has begun none
  const Puppet thief = Join(coordinator, 3);
  EXPECT_EQ(thief.ranges(), (Ranges{{0, kRows / 2, kRows}}));
  StandStill(coordinator, copies, seconds(11));
  EXPECT_EQ(Join(coordinator, 4).ranges()[0].begin, 751);  // there is still something to steal
  EXPECT_TRUE(coordinator.Die(3, false).empty());
  EXPECT_TRUE(coordinator.Die(2, false).empty());
  EXPECT_EQ(Join(coordinator, 5).ranges(), (Ranges{{0, 0, kRows / 2}}));
}

TEST_F(CoordinatorFailureTest, WhatALostCopyWasOfIsLentAgainAndStolenFrom) {
  Coordinator coordinator = Make(3);
  Puppet hangs = Join(coordinator, 1), fast = Join(coordinator, 2), third = Join(coordinator, 3);
  HaveRates(coordinator, {{&hangs, 1}, {&fast, 4}, {&third, 1}});
  for (Puppet* worker : {&fast, &third}) {
    worker->Finish(worker->held.begin()->first, kRows);
    worker->Tell(coordinator, now_);
  }
  hangs.held.begin()->second.begun = kRows - 20;  // too few for two
  hangs.held.begin()->second.oldest = seconds(60);
  hangs.Tell(coordinator, now_);
  Ask(coordinator, third);
  EXPECT_EQ(third.ranges(), hangs.ranges());
  EXPECT_TRUE(coordinator.Die(3, false).empty());
  Puppet next = Join(coordinator, 4);
  EXPECT_EQ(next.ranges(), hangs.ranges());
  EXPECT_TRUE(coordinator.Die(4, false).empty());
  Ask(coordinator, fast);
  EXPECT_EQ(fast.ranges(), (Ranges{{0, kRows - 20, kRows}}));
}

TEST_F(CoordinatorFailureTest, ARowThatKillsIsFoundAndBlamedWhenWorkersDiedOfItAlone) {
  Coordinator coordinator = Make(2);
  constexpr std::int64_t kPoison = 333;
  std::vector<std::int64_t> sizes;
  std::vector<RowRange> blamed;
  for (int i = 0; i < 100 && blamed.empty(); ++i) {
    Puppet worker = Join(coordinator, ++last_worker_);
    while (!worker.held.empty()) {
      const auto [lease, held] = *worker.held.begin();
      const RowRange range = held.lease.range;
      if (range.split == 0 && range.begin <= kPoison && kPoison < range.end) {
        EXPECT_EQ(worker.held.size(), 1U);
        sizes.push_back(range.size());
        blamed = coordinator.Die(last_worker_, /*may_be_a_row=*/true);
        break;
      }
      worker.Finish(lease, kRows);
      Ask(coordinator, worker);
    }
  }
  EXPECT_EQ(blamed, (Ranges{{0, kPoison, kPoison + 1}}));
  EXPECT_EQ(sizes, (std::vector<std::int64_t>{kRows, kRows, 125, 16, 2, 1, 1, 1}));
  Puppet last = Join(coordinator, 1);
  EXPECT_EQ(last.ranges(), (Ranges{{0, kPoison, kPoison + 1}}));  // now it fails
  std::int64_t rows = 0;
  for (; last.ranges()[0].size() < kRows; Ask(coordinator, last)) {
    rows += last.ranges()[0].size();
    last.Finish(last.held.begin()->first, kRows);
  }
  EXPECT_EQ(rows, kRows - kPoison);
  EXPECT_EQ(last.ranges(), (Ranges{{0, 0, kRows}}));
}

TEST_F(CoordinatorFailureTest, RowsThatMayKillAreLentLastAndAlone) {
  Coordinator coordinator = Make(3);
  RowRange lent;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Kill(coordinator, lent).empty());
  EXPECT_EQ(lent, (RowRange{0, 0, kRows}));
  Puppet worker = Join(coordinator, 1, kRows);
  EXPECT_EQ(worker.ranges(), (Ranges{{1, 0, kRows}}));
  Ask(coordinator, worker, kRows);
  EXPECT_EQ(worker.ranges(), (Ranges{{1, 0, kRows}, {2, 0, kRows}}));
  Ask(coordinator, worker, kRows);
  EXPECT_EQ(worker.held.size(), 2U);  // it holds something
  Puppet alone = Join(coordinator, 2, kRows);
  EXPECT_EQ(alone.ranges(), (Ranges{{0, 0, 125}}));
  EXPECT_TRUE(coordinator.Die(1, false).empty());
  Ask(coordinator, alone, kRows);
  EXPECT_EQ(alone.held.size(), 1U);
}

TEST_F(CoordinatorFailureTest, DeathsWithAKnownReasonAreNoRowsFault) {
  CoordinatorOptions options;
  options.deaths_max = 1;
  Coordinator coordinator = Make(1, options);
  for (int i = 1; i <= 20; ++i) {
    EXPECT_EQ(Join(coordinator, i).ranges(), (Ranges{{0, 0, kRows}}));
    EXPECT_TRUE(coordinator.Die(i, false).empty());
  }
  Join(coordinator, 21);
  EXPECT_TRUE(coordinator.Die(21, true).empty());
  EXPECT_EQ(Join(coordinator, 22).ranges(), (Ranges{{0, 0, kRows}}));  // once may be chance
}

TEST_F(CoordinatorFailureTest, DeathsCountForWhatIsStolenAndForCopies) {
  Coordinator coordinator = Make(1);
  RowRange lent;
  EXPECT_TRUE(Kill(coordinator, lent).empty());
  Puppet victim = Join(coordinator, 1);
  victim.Tell(coordinator, now_);
  Puppet thief = Join(coordinator, 2);
  EXPECT_EQ(thief.ranges(), (Ranges{{0, kRows / 2, kRows}}));
  StandStill(coordinator, victim, seconds(11));
  thief.Begin();
  thief.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, kRows / 2}}));
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(coordinator.Die(i, i != 3).empty());
  EXPECT_EQ(Join(coordinator, 4).ranges(), (Ranges{{0, 0, kRows / 2}}));
  EXPECT_TRUE(coordinator.Die(4, true).empty());
  Join(coordinator, 5);
  EXPECT_EQ(Join(coordinator, 6).ranges(), (Ranges{{0, 63, 126}}));
  for (int i = 7; i < 13; ++i) Join(coordinator, i);
  EXPECT_EQ(Join(coordinator, 13).ranges(), (Ranges{{0, kRows / 2, kRows / 2 + 63}}));
}

TEST_F(CoordinatorFailureTest, DeathsOfALeaseAndItsCopyAreTwo) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  StandStill(coordinator, worker, seconds(11));
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 0, kRows}}));
  for (int i = 1; i <= 2; ++i) EXPECT_TRUE(coordinator.Die(i, true).empty());
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, 125}}));
}

TEST_F(CoordinatorFailureTest, WhatMayKillIsCopiedByWhoHoldsNothingElse) {
  Coordinator coordinator = Make(2);
  RowRange lent;
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Kill(coordinator, lent).empty());
  Puppet busy = Join(coordinator, 1);
  busy.Begin();
  busy.Tell(coordinator, now_);
  std::vector<Puppet> alone;
  for (int i = 2; i < 10; ++i) alone.push_back(Join(coordinator, i));
  StandStill(coordinator, alone[0], seconds(11));
  Ask(coordinator, busy);
  EXPECT_EQ(busy.held.size(), 1U);
  EXPECT_EQ(Join(coordinator, 10).ranges(), alone[0].ranges());
}

TEST_F(CoordinatorFailureTest, WithoutRowLogARowThatKillsIsFoundAndItsSplitPublishedWhole) {
  CoordinatorOptions options;
  options.divides = false;
  Coordinator coordinator = Make(2, options);
  const RowRange poison{1, 333, 334};
  std::vector<RowRange> blamed;
  for (int i = 0; i < 100 && blamed.empty(); ++i) {
    Puppet worker = Join(coordinator, ++last_worker_);
    while (!worker.held.empty() && blamed.empty()) {
      const auto [lease, held] = *worker.held.begin();
      const RowRange range = held.lease.range;
      if (range.split == 1 && range.begin <= poison.begin && poison.end <= range.end) {
        blamed = coordinator.Die(last_worker_, /*may_be_a_row=*/true);
        break;
      }
      worker.Finish(lease, kRows);
      Ask(coordinator, worker);
    }
  }
  EXPECT_EQ(blamed, Ranges{poison});
  coordinator.NoteFailed(poison);
  Puppet last = Join(coordinator, 1);
  for (; last.ranges()[0].size() < kRows; Ask(coordinator, last)) {
    EXPECT_NE(last.ranges()[0], poison);
    last.Finish(last.held.begin()->first, kRows);
  }
  EXPECT_EQ(last.ranges(), (Ranges{{1, 0, kRows}}));
}

}  // namespace
}  // namespace millstream
