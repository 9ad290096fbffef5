// SPDX-License-Identifier: Apache-2.0
// The coordinator with workers to which everything happens that happens to machines.
#include "job/simulated_cluster.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

class SimulatedClusterTest : public testing::TestWithParam<std::uint64_t> {
 protected:
  // Whatever happens, each row has its answer and each split one part.
  ClusterOutcome Run(ClusterOptions options) {
    options.seed = GetParam();
    SimulatedCluster cluster(options);
    cluster.Run();
    const ClusterOutcome& outcome = cluster.outcome();
    EXPECT_TRUE(cluster.is_over()) << "after " << outcome.seconds << " s";
    EXPECT_EQ(outcome.num_published, options.num_splits);
    EXPECT_EQ(outcome.rows_missing, 0);
    EXPECT_EQ(outcome.wrongly_blamed, 0);
    return outcome;
  }
  static ClusterOptions Churn() {
    ClusterOptions options;
    options.slow_share = 0.05;
    options.deaths_per_hour = options.drains_per_hour = options.stops_per_hour = 5;
    options.lost = options.late = options.doubled = 0.02;
    options.partitions_per_hour = options.restarts_per_hour = 30;
    return options;
  }
  static double Wasted(const ClusterOutcome& outcome) {
    return 1 - outcome.useful_seconds / outcome.inferred_seconds;
  }
};

// But for the few rows that a worker began before it heard of a theft.
TEST_P(SimulatedClusterTest, NothingIsDoneTwiceIfNothingHappens) {
  const ClusterOutcome outcome = Run({});
  EXPECT_EQ(outcome.num_published_again, 0);
  EXPECT_LT(outcome.rows_again, 20);
  EXPECT_LT(Wasted(outcome), 1e-4);
}

TEST_P(SimulatedClusterTest, DeathsWithoutNoticeCostWhatWasNotDurable) {
  ClusterOptions options;
  options.deaths_per_hour = 10;
  const ClusterOutcome outcome = Run(options);
  EXPECT_GT(outcome.num_deaths, 20);
  EXPECT_LE(outcome.num_published_again, outcome.num_deaths);  // some die before they say so
  EXPECT_LT(Wasted(outcome), 0.03);
}

TEST_P(SimulatedClusterTest, DrainsCostNearlyNothing) {
  ClusterOptions options;
  options.drains_per_hour = 10;
  const ClusterOutcome outcome = Run(options);
  EXPECT_GT(outcome.num_drains, 20);
  EXPECT_LT(outcome.rows_again, 50);
  EXPECT_LT(Wasted(outcome), 0.002);
}

TEST_P(SimulatedClusterTest, AJobOfOneSplitIsDoneByAllWorkers) {
  ClusterOptions options;
  options.num_splits = 1;
  options.rows_per_split = 100'000;
  const ClusterOutcome outcome = Run(options);
  EXPECT_LT(outcome.seconds, 70);  // 50 if all of them worked all the time
  EXPECT_LT(Wasted(outcome), 1e-3);
}

TEST_P(SimulatedClusterTest, SlowWorkersDoNotHoldTheJobUp) {
  ClusterOptions options;
  options.slow_share = 0.1;
  const ClusterOutcome outcome = Run(options);
  EXPECT_LT(outcome.seconds, 125);  // without any, 72 to 75; a slow one takes 32 for its rows
  EXPECT_LT(Wasted(outcome), 0.06);
}

TEST_P(SimulatedClusterTest, WithoutRowLogWholeSplitsAreDoneAgain) {
  ClusterOptions options = Churn();
  options.has_row_log = false;
  Run(options);
}

TEST_P(SimulatedClusterTest, RowsThatKillAreBlamedAndNoOthers) {
  ClusterOptions options = Churn();
  options.num_workers = 50;
  options.num_splits = 300;
  options.num_poison = 3;
  const ClusterOutcome outcome = Run(options);
  EXPECT_EQ(outcome.num_blamed, 3);
}

TEST_P(SimulatedClusterTest, EveryRowIsThereWhateverHappens) {
  const ClusterOutcome outcome = Run(Churn());
  EXPECT_GT(outcome.num_deaths + outcome.num_drains + outcome.num_stops, 50);
  EXPECT_LT(Wasted(outcome), 0.1);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulatedClusterTest, testing::Range<std::uint64_t>(1, 5));

}  // namespace
}  // namespace millstream
