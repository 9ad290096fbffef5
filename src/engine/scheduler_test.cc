// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace millstream {
namespace {

using States = std::vector<SequenceState>;

std::vector<std::pair<std::size_t, std::int64_t>> Work(const StepPlan& plan) {
  std::vector<std::pair<std::size_t, std::int64_t>> work;
  work.reserve(plan.work.size());
  for (const StepPlan::Work& one : plan.work) work.emplace_back(one.sequence, one.tokens);
  return work;
}
using Expected = std::vector<std::pair<std::size_t, std::int64_t>>;

TEST(SchedulerTest, DecodesFirstThenFillsTheBudgetWithPrompts) {
  const States running = {{100, 40, 7}, {21, 20, 2}};
  const States waiting = {{30, 0, 0}, {30, 0, 0}, {30, 0, 0}};
  const StepPlan plan = PlanStep({100, 8, 50}, running, waiting);
  EXPECT_EQ(plan.num_preempted, 0U);
  EXPECT_EQ(plan.num_admitted, 2U);
  EXPECT_EQ(Work(plan), (Expected{{1, 1}, {0, 60}, {2, 30}, {3, 9}}));
}

TEST(SchedulerTest, AdmitsInOrderAsSequencesAndPagesAllow) {
  const States waiting = {{30, 0, 0}, {64, 0, 0}, {1, 0, 0}};
  EXPECT_EQ(PlanStep({1000, 1, 50}, {}, waiting).num_admitted, 1U);
  EXPECT_EQ(PlanStep({1000, 8, 50}, {}, waiting).num_admitted, 3U);
  // 2 pages, then 4 and one to spare for the first; the third may not overtake.
  EXPECT_EQ(PlanStep({1000, 8, 7}, {}, waiting).num_admitted, 2U);
  EXPECT_EQ(PlanStep({1000, 8, 6}, {}, waiting).num_admitted, 1U);
  EXPECT_EQ(PlanStep({1000, 8, 1}, {}, waiting).num_admitted, 0U);
}

TEST(SchedulerTest, PreemptsTheLastAdmittedWhenPagesRunOut) {
  // The first needs a page, the second not.
  const States running = {{17, 16, 1}, {20, 19, 2}, {33, 5, 3}};
  const StepPlan plan = PlanStep({100, 8, 0}, running, States{{1, 0, 0}});
  EXPECT_EQ(plan.num_preempted, 1U);
  EXPECT_EQ(plan.num_admitted, 0U);
  EXPECT_EQ(Work(plan), (Expected{{0, 1}, {1, 1}}));
}

TEST(SchedulerTest, TheLastGivesItselfUp) {
  const States running = {{20, 19, 2}, {33, 32, 2}};
  const StepPlan plan = PlanStep({100, 8, 0}, running, {});
  EXPECT_EQ(plan.num_preempted, 1U);
  EXPECT_EQ(Work(plan), (Expected{{0, 1}}));
}

/// Random arrivals, lengths, cancels and shortage, played through to the end.
class Simulation {
 public:
  explicit Simulation(std::uint32_t seed) : random_(seed) {
    limits_ = {Pick(1, 40), Pick(1, 8), 0};
    total_pages_ = Pick(4, 30);
    free_pages_ = total_pages_;
    to_come_ = Pick(1, 40);
  }

  void Run() {
    for (int step = 0; to_come_ > 0 || !running_.empty() || !waiting_.empty(); ++step) {
      ASSERT_LT(step, 20000) << "no progress";
      Arrive();
      CancelSome();
      Step();
      if (testing::Test::HasFatalFailure()) return;
      std::int64_t held = 0;
      for (const Job& job : running_) held += job.state.pages;
      ASSERT_EQ(held + free_pages_, total_pages_);
    }
    EXPECT_EQ(ended_, arrived_);
  }

 private:
  struct Job {
    SequenceState state;
    std::int64_t length;  // at its end
  };

  std::int64_t Pick(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }

  void Arrive() {
    for (std::int64_t count = std::min(Pick(0, 3), to_come_); count > 0; --count, --to_come_) {
      const std::int64_t length = Pick(2, total_pages_ * 16);
      waiting_.push_back({{Pick(1, length - 1), 0, 0}, length});
      ++arrived_;
    }
  }

  void CancelSome() {
    if (Pick(0, 9) > 0 || running_.empty()) return;
    const auto i = static_cast<std::size_t>(Pick(0, std::ssize(running_) - 1));
    free_pages_ += running_[i].state.pages;
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    ++ended_;
  }

  static States StatesOf(const std::vector<Job>& jobs) {
    States states;
    for (const Job& job : jobs) states.push_back(job.state);
    return states;
  }

  void TakePages(SequenceState& state) {
    const std::int64_t lacking = std::max<std::int64_t>(0, PagesFor(state.known) - state.pages);
    ASSERT_LE(lacking, free_pages_);
    free_pages_ -= lacking;
    state.pages += lacking;
  }

  void Step() {
    limits_.free_pages = free_pages_;
    const StepPlan plan = PlanStep(limits_, StatesOf(running_), StatesOf(waiting_));
    ASSERT_TRUE(plan.num_preempted == 0 || plan.num_admitted == 0);
    for (std::size_t i = 0; i < plan.num_preempted; ++i) {
      Job job = running_.back();
      running_.pop_back();
      free_pages_ += job.state.pages;
      job.state.pages = job.state.computed = 0;
      waiting_.insert(waiting_.begin(), job);
    }
    ASSERT_LE(plan.num_admitted, waiting_.size());
    for (std::size_t i = 0; i < plan.num_admitted; ++i) {
      TakePages(waiting_.front().state);
      running_.push_back(waiting_.front());
      waiting_.erase(waiting_.begin());
    }
    ASSERT_LE(std::ssize(running_), limits_.max_sequences);
    Compute(plan);
  }

  void Compute(const StepPlan& plan) {
    std::int64_t tokens = 0;
    std::vector<bool> used(running_.size(), false);
    for (const StepPlan::Work& work : plan.work) {
      ASSERT_LT(work.sequence, running_.size());
      ASSERT_FALSE(used[work.sequence]);
      used[work.sequence] = true;
      SequenceState& state = running_[work.sequence].state;
      ASSERT_GT(work.tokens, 0);
      ASSERT_LE(work.tokens, state.known - state.computed);
      TakePages(state);
      state.computed += work.tokens;
      state.known += state.computed == state.known ? 1 : 0;
      tokens += work.tokens;
    }
    ASSERT_LE(tokens, limits_.step_tokens);
    ASSERT_TRUE(tokens > 0 || running_.empty());
    std::erase_if(running_, [&](const Job& job) {
      if (job.state.known <= job.length) return false;
      free_pages_ += job.state.pages;
      ++ended_;
      return true;
    });
  }

  std::mt19937 random_;
  SchedulerLimits limits_;
  std::int64_t total_pages_ = 0;
  std::int64_t free_pages_ = 0;
  std::int64_t to_come_ = 0;
  std::int64_t arrived_ = 0;
  std::int64_t ended_ = 0;
  std::vector<Job> running_;
  std::vector<Job> waiting_;
};

TEST(SchedulerTest, EverySequenceEndsOnceAndNoPageIsLost) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    Simulation(seed).Run();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

TEST(AdmissionOrderTest, IsThatOfArrivalUntilAllMayRunAndThenTheLongestFirst) {
  const SchedulerLimits limits{.step_tokens = 8, .max_sequences = 5, .free_pages = 9};
  const std::vector<std::int64_t> expected = {3, 9, 9, 12};
  using Order = std::vector<std::size_t>;
  EXPECT_EQ(AdmissionOrder(limits, 2, expected), (Order{0, 1, 2, 3}));
  EXPECT_EQ(AdmissionOrder(limits, 1, expected), (Order{3, 1, 2, 0}));
  EXPECT_EQ(AdmissionOrder(limits, 0, {}), Order());
}

}  // namespace
}  // namespace millstream
