// SPDX-License-Identifier: Apache-2.0
#include "job/coordinator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "job/coordinator_testing.h"

namespace millstream {
namespace {

using std::chrono::seconds;

TEST_F(CoordinatorTest, LendsWholeSplitsInOrderUntilAWorkerHasWhatItWants) {
  Coordinator coordinator = Make(4);
  const Puppet first = Join(coordinator, 1, kRows + 1);
  EXPECT_EQ(first.ranges(), (Ranges{{0, 0, kRows}, {1, 0, kRows}}));
  const Puppet second = Join(coordinator, 2, 1);
  EXPECT_EQ(second.ranges(), (Ranges{{2, 0, kRows}}));
  EXPECT_EQ(coordinator.num_leases(), 3);
  EXPECT_EQ(coordinator.num_workers(), 2);
  const Puppet idle = Join(coordinator, 3, 0);
  EXPECT_TRUE(idle.held.empty());
}

TEST_F(CoordinatorTest, WhoJoinsFirstLeavesRowsForThoseThatAreToCome) {
  Coordinator coordinator = Make(1);
  coordinator.Expect(4);
  for (std::int64_t worker = 1; worker <= 4; ++worker) {
    const std::int64_t begin = (worker - 1) * kRows / 4;
    const Puppet puppet = Join(coordinator, worker, kRows);
    EXPECT_EQ(puppet.ranges(), (Ranges{{0, begin, begin + kRows / 4}}));
  }
}

TEST_F(CoordinatorTest, AWorkerMayHoldItsShareOfWhatIsLeft) {
  Coordinator coordinator = Make(2);
  coordinator.Expect(2);
  Puppet worker = Join(coordinator, 1, kRows);
  EXPECT_EQ(worker.ranges(), (Ranges{{0, 0, kRows}}));
  worker.Begin(600);
  worker.report.done = {{0, 0, 600}};
  Ask(coordinator, worker, kRows);  // 1,400 are left, of which it holds 400
  EXPECT_EQ(worker.ranges(), (Ranges{{0, 0, kRows}, {1, 0, 300}}));
  EXPECT_TRUE(Ask(coordinator, worker, kRows).take.empty());
  EXPECT_EQ(Join(coordinator, 2, kRows).ranges(), (Ranges{{1, 300, kRows}}));
}

TEST_F(CoordinatorTest, RowsThatAreDoneAreNotWhatAWorkerWants) {
  Coordinator coordinator = Make(2);
  Puppet first = Join(coordinator, 1);
  first.report.done = {{0, 0, kRows - 100}};
  first.report.leaves = true;
  first.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 2, 101).ranges(), (Ranges{{0, 0, kRows}, {1, 0, kRows}}));
}

TEST_F(CoordinatorTest, IsOverOnceEachSplitIsPublished) {
  Coordinator coordinator = Make(2);
  Puppet worker = Join(coordinator, 1, 2 * kRows);
  while (!worker.held.empty()) worker.Finish(worker.held.begin()->first, kRows);
  EXPECT_FALSE(coordinator.is_over());
  EXPECT_TRUE(worker.Tell(coordinator, now_).is_over);
  EXPECT_TRUE(coordinator.is_over());
  EXPECT_EQ(coordinator.num_leases(), 0);
  EXPECT_TRUE(Coordinator({}, {}).is_over());
}

TEST_F(CoordinatorTest, AnswersDurableAreNoPartUntilItIsPublished) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  worker.report.done = {{0, 0, kRows}};
  EXPECT_FALSE(worker.Tell(coordinator, now_).is_over);
  EXPECT_EQ(coordinator.num_leases(), 1);  // it is about to publish
  worker.report.published = {0};
  EXPECT_TRUE(worker.Tell(coordinator, now_).is_over);
}

TEST_F(CoordinatorTest, WhoHoldsAWholeSplitPublishesItThoughAnotherSaysThatItIsDurable) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  Puppet other(2);
  other.report.done = {{0, 0, kRows}};
  Ask(coordinator, other);
  EXPECT_EQ(other.ranges(), Ranges{});
  EXPECT_TRUE(worker.Tell(coordinator, now_).end.empty());
}

TEST_F(CoordinatorTest, RowsThatAnotherMadeDurableAreNotStolen) {
  Coordinator coordinator = Make(2);
  Puppet worker = Join(coordinator, 1), other = Join(coordinator, 2);
  worker.Tell(coordinator, now_);
  other.report.done = {{0, 400, kRows}};
  other.Begin();
  other.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, 400}}));
}

TEST_F(CoordinatorTest, ALeaseIsOfOneWorker) {
  Coordinator coordinator = Make(1);
  const Puppet worker = Join(coordinator, 1);
  Puppet other(2);
  other.held = worker.held;
  other.Begin();
  EXPECT_EQ(other.Tell(coordinator, now_).end.size(), 1U);
  EXPECT_EQ(coordinator.num_leases(), 1);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 501, kRows}}));
}

TEST_F(CoordinatorTest, ALeaseWhoseAnswerWasLostIsLentAgainToItsWorkerOnly) {
  Coordinator coordinator = Make(2);
  Puppet worker(1);
  worker.report.wants_rows = 1;
  worker.report.number = 1;
  const WorkerOrders lost = coordinator.Hear(worker.report, now_);
  worker.report.wants_rows = 0;
  const WorkerOrders again = worker.Tell(coordinator, now_);
  ASSERT_EQ(again.take.size(), 1U);
  EXPECT_EQ(again.take[0].number, lost.take[0].number);
  EXPECT_TRUE(worker.Tell(coordinator, now_).take.empty());  // it holds it now
  EXPECT_EQ(coordinator.num_leases(), 1);
}

TEST_F(CoordinatorTest, AReportThatComesTwiceIsAnsweredTwiceAndHeardOnce) {
  Coordinator coordinator = Make(5);
  Puppet worker(1);
  worker.report.number = 1;
  worker.report.wants_rows = 1;
  const WorkerOrders first = coordinator.Hear(worker.report, now_);
  const WorkerOrders second = coordinator.Hear(worker.report, now_);
  ASSERT_EQ(second.take.size(), 1U);
  EXPECT_EQ(first.take[0].number, second.take[0].number);
  EXPECT_EQ(coordinator.num_leases(), 1);
}

TEST_F(CoordinatorTest, AnOldReportSaysWhatIsDurableAndNothingElse) {
  Coordinator coordinator = Make(2);
  Puppet worker = Join(coordinator, 1, 2 * kRows);
  const std::int64_t first = worker.held.begin()->first;
  worker.Begin();
  worker.Tell(coordinator, now_);
  Puppet old = worker;
  old.report.held = {{{first, {0, 0, 10}}, 0, {}}};
  old.report.number = 1;
  old.report.published = {1};
  old.report.wants_rows = 10;
  old.report.leaves = true;
  const WorkerOrders orders = coordinator.Hear(old.report, now_);
  EXPECT_TRUE(orders.take.empty() && orders.shorten.empty() && orders.end.empty());
  EXPECT_EQ(coordinator.splits_left(), 1);
  EXPECT_EQ(coordinator.num_leases(), 1);
  EXPECT_EQ(Join(coordinator, 2).ranges(), Ranges{});  // the other has still all of split 0
}

TEST_F(CoordinatorTest, WhatAWorkerGivesBackIsLentToOthers) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  HeldLease& held = worker.held.begin()->second;
  held.begun = held.lease.range.end = 300;
  const WorkerOrders orders = worker.Tell(coordinator, now_);
  EXPECT_TRUE(orders.take.empty() && orders.shorten.empty() && orders.end.empty());
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{0, 300, kRows}}));
  held.lease.range.end = 0;
  EXPECT_EQ(worker.Tell(coordinator, now_).end.size(), 1U);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 0, 300}}));
}

TEST_F(CoordinatorTest, ALeaseOfWhichOnlyDurableRowsAreLeftIsNone) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  HeldLease& held = worker.held.begin()->second;
  worker.report.done = {{0, 0, 300}};
  held.begun = held.lease.range.end = 300;
  worker.Tell(coordinator, now_);
  EXPECT_EQ(coordinator.num_leases(), 0);
}

TEST_F(CoordinatorTest, AJobOfOneSplitUsesEveryWorker) {
  Coordinator coordinator = Make(1);
  std::vector<Puppet> workers;
  workers.reserve(8);
  for (int i = 0; i < 8; ++i) workers.push_back(Join(coordinator, i + 1));
  for (Puppet& worker : workers) worker.Tell(coordinator, now_);
  std::vector<std::int64_t> places(kRows);
  for (const Puppet& worker : workers) {
    ASSERT_EQ(worker.held.size(), 1U);
    for (const RowRange& range : worker.ranges()) {
      EXPECT_GE(range.size(), 100);
      for (auto row = range.begin; row < range.end; ++row) ++places[static_cast<std::size_t>(row)];
    }
  }
  EXPECT_EQ(std::count(places.begin(), places.end(), 1), kRows);
}

TEST_F(CoordinatorTest, ADividedSplitIsPublishedByOneWorkerOnceItsAnswersAreDurable) {
  Coordinator coordinator = Make(1);
  Puppet first = Join(coordinator, 1), second = Join(coordinator, 2);
  first.Tell(coordinator, now_);
  first.Finish(first.held.begin()->first, kRows);
  EXPECT_TRUE(first.report.published.empty());
  EXPECT_TRUE(Ask(coordinator, first, 0).take.empty());
  second.Finish(second.held.begin()->first, kRows);
  EXPECT_TRUE(Ask(coordinator, second, 0).take.empty());  // it does not want any
  Ask(coordinator, first);
  EXPECT_EQ(first.ranges(), (Ranges{{0, 0, kRows}}));
  Ask(coordinator, second);
  EXPECT_EQ(second.ranges(), Ranges{});  // nothing of it is divided again
  first.Finish(first.held.begin()->first, kRows);
  EXPECT_TRUE(first.Tell(coordinator, now_).is_over);
}

TEST_F(CoordinatorTest, NobodyStealsFromItself) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  worker.Tell(coordinator, now_);
  EXPECT_TRUE(Ask(coordinator, worker).take.empty());
}

TEST_F(CoordinatorTest, AFasterWorkerTakesTheGreaterShare) {
  Coordinator coordinator = Make(2);
  Puppet slow = Join(coordinator, 1), fast = Join(coordinator, 2);
  HaveRates(coordinator, {{&slow, 1}, {&fast, 3}});
  fast.Finish(fast.held.begin()->first, kRows);
  Ask(coordinator, fast);
  ASSERT_EQ(fast.held.size(), 1U);
  EXPECT_NEAR(static_cast<double>(fast.ranges()[0].size()), 990 * 0.75, 5);
  EXPECT_EQ(fast.ranges()[0].end, kRows);
}

TEST_F(CoordinatorTest, AWorkerThatLacksRowsIsNotTakenForSlow) {
  Coordinator coordinator = Make(2);
  Puppet slow = Join(coordinator, 1), fast = Join(coordinator, 2);
  HaveRates(coordinator, {{&slow, 1}, {&fast, 3}});
  fast.Finish(fast.held.begin()->first, kRows);
  fast.report.rows_finished -= kRows;
  for (int i = 0; i < 100; ++i) {
    now_ += seconds(1);
    ++slow.report.rows_finished;
    slow.Tell(coordinator, now_);
    fast.Tell(coordinator, now_);
  }
  Ask(coordinator, fast);
  ASSERT_EQ(fast.held.size(), 1U);
  EXPECT_NEAR(static_cast<double>(fast.ranges()[0].size()), 990 * 0.75, 5);
}

TEST_F(CoordinatorTest, TheWorkerWithTheMostTimeAheadOfItIsStolenFrom) {
  Coordinator coordinator = Make(2);
  Puppet slow = Join(coordinator, 1), fast = Join(coordinator, 2);
  HaveRates(coordinator, {{&slow, 1}, {&fast, 10}});
  slow.held.begin()->second.begun = 500;  // less to do, for longer
  slow.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 3).ranges()[0].split, 0);
}

TEST_F(CoordinatorTest, WhatAWorkerWillHaveBegunIsNotStolen) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1);
  HaveRates(coordinator, {{&worker, 10}});
  now_ += seconds(1);
  worker.report.rows_finished += 10;
  worker.held.begin()->second.begun = 900;
  worker.Tell(coordinator, now_);
  now_ += seconds(1);  // it has begun 10 more, and will as many before it hears of a theft
  const Puppet thief = Join(coordinator, 2);
  EXPECT_EQ(thief.ranges(), (Ranges{{0, kRows - 40, kRows}}));
}

TEST_F(CoordinatorTest, WhatAWorkerGetsAndWantsIsNotStolenBeforeItSaysMore) {
  Coordinator coordinator = Make(1);
  Puppet worker = Join(coordinator, 1, kRows);
  EXPECT_EQ(Join(coordinator, 2).ranges(), Ranges{});
  worker.Tell(coordinator, now_);  // it has begun none
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, kRows / 2, kRows}}));
}

TEST_F(CoordinatorTest, WhatAWorkerWantsIsCountedFromTheFirstRowThatIsNotDone) {
  Coordinator coordinator = Make(1);
  Puppet first = Join(coordinator, 1);
  first.report.done = {{0, 0, 300}};
  first.report.leaves = true;
  first.Tell(coordinator, now_);
  Join(coordinator, 2, 200);
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 750, kRows}}));
}

TEST_F(CoordinatorTest, TooFewRowsForTwoAreNotDividedAndGoToAMuchFasterWorkerAsAWhole) {
  Coordinator coordinator = Make(3);
  Puppet slow = Join(coordinator, 1), other = Join(coordinator, 2), fast = Join(coordinator, 3);
  HaveRates(coordinator, {{&slow, 1}, {&other, 2}, {&fast, 4}});
  for (Puppet* worker : {&other, &fast}) worker->Finish(worker->held.begin()->first, kRows);
  slow.held.begin()->second.begun = kRows - 31;
  slow.report.done = {{0, 0, kRows - 100}};
  for (Puppet* worker : {&slow, &other, &fast}) worker->Tell(coordinator, now_);
  Ask(coordinator, other);
  EXPECT_EQ(other.ranges(), Ranges{});
  Ask(coordinator, fast);
  EXPECT_EQ(fast.ranges(), (Ranges{{0, kRows - 31, kRows}}));
  const WorkerOrders orders = slow.Tell(coordinator, now_);
  ASSERT_EQ(orders.shorten.size(), 1U);
  EXPECT_EQ(orders.shorten[0].range.end, kRows - 31);
}

TEST_F(CoordinatorTest, IfThereIsNothingToStealFromTheSlowestTheNextIsStolenFrom) {
  Coordinator coordinator = Make(3);
  Puppet slow = Join(coordinator, 1), fast = Join(coordinator, 2), thief = Join(coordinator, 3);
  HaveRates(coordinator, {{&slow, 1}, {&fast, 10}, {&thief, 2}});
  slow.held.begin()->second.begun = kRows - 20;
  fast.held.begin()->second.begun = kRows - 150;
  thief.Finish(thief.held.begin()->first, kRows);
  for (Puppet* worker : {&slow, &fast, &thief}) worker->Tell(coordinator, now_);
  Ask(coordinator, thief);
  ASSERT_EQ(thief.held.size(), 1U);
  EXPECT_EQ(thief.ranges()[0].split, 1);
}

TEST_F(CoordinatorTest, RowsBegunBeforeATheftWasHeardOfStayWithWhoBeganThem) {
  Coordinator coordinator = Make(1);
  Puppet victim = Join(coordinator, 1), thief = Join(coordinator, 2);
  EXPECT_EQ(thief.ranges()[0].begin, 501);  // one row was wanted, so begun
  HeldLease& stolen = thief.held.begin()->second;
  stolen.lease.range.end = stolen.begun = 600;
  thief.Tell(coordinator, now_);  // gives some back
  thief.report.done = {thief.ranges()[0]};
  thief.Tell(coordinator, now_);
  victim.Begin(700);
  victim.Tell(coordinator, now_);
  EXPECT_TRUE(victim.Tell(coordinator, now_).shorten.empty());
  EXPECT_EQ(victim.ranges(), (Ranges{{0, 0, 700}}));
  EXPECT_EQ(Join(coordinator, 3).ranges(), (Ranges{{0, 700, kRows}}));
}

TEST_F(CoordinatorTest, ATheftIsToldAgainUntilItIsHeardOf) {
  Coordinator coordinator = Make(1);
  Puppet victim = Join(coordinator, 1);
  Join(coordinator, 2);
  Puppet deaf = victim;
  EXPECT_EQ(deaf.Tell(coordinator, now_).shorten.size(), 1U);
  victim.report.number = 2;
  EXPECT_EQ(victim.Tell(coordinator, now_).shorten.size(), 1U);
  EXPECT_TRUE(victim.Tell(coordinator, now_).shorten.empty());
}

TEST_F(CoordinatorTest, WithoutRowLogASplitIsNeverDivided) {
  CoordinatorOptions options;
  options.divides = false;
  Coordinator coordinator = Make(2, options);
  Puppet worker = Join(coordinator, 1, kRows + 1);
  worker.held.begin()->second.begun = 1;
  worker.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 2).ranges(), (Ranges{{1, 0, kRows}}));  // nothing of it was begun
  EXPECT_EQ(Join(coordinator, 3).ranges(), Ranges{});
  coordinator.Drain(1);
  worker.Tell(coordinator, now_);
  EXPECT_EQ(Join(coordinator, 4).ranges(), Ranges{});
  EXPECT_EQ(worker.ranges(), (Ranges{{0, 0, kRows}}));
  HeldLease& held = worker.held.begin()->second;
  held.begun = held.lease.range.end = 1;  // it gives some of it back
  EXPECT_EQ(worker.Tell(coordinator, now_).end.size(), 1U);
  EXPECT_EQ(Join(coordinator, 5).ranges(), (Ranges{{0, 0, kRows}}));
}

}  // namespace
}  // namespace millstream
