// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>

#include "kernels/kernels.h"

namespace millstream {
namespace {

class Planner {
 public:
  Planner(
      const SchedulerLimits& limits,
      std::span<const SequenceState> running,
      std::span<const SequenceState> waiting
  )
      : limits_(limits),
        running_(running),
        waiting_(waiting),
        kept_(running.size()),
        free_pages_(limits.free_pages),
        budget_(limits.step_tokens) {}

  StepPlan Plan() {
    for (std::size_t i = 0; i < kept_ && budget_ > 0; ++i) {
      if (Pending(running_[i]) == 1) Decode(i);
    }
    for (std::size_t i = 0; i < kept_ && budget_ > 0; ++i) {
      if (Pending(running_[i]) > 1) Compute(i, running_[i]);
    }
    plan_.num_preempted = running_.size() - kept_;
    if (plan_.num_preempted == 0) Admit();
    return std::move(plan_);
  }

 private:
  static std::int64_t Pending(const SequenceState& sequence) {
    return sequence.known - sequence.computed;
  }

  void Decode(std::size_t i) {
    const std::int64_t lacking =
        std::max<std::int64_t>(0, PagesFor(running_[i].known) - running_[i].pages);
    while (lacking > free_pages_ && kept_ > i + 1) Preempt();
    if (lacking > free_pages_) {
      if (i > 0) Preempt();  // itself
      return;
    }
    free_pages_ -= lacking;
    Compute(i, running_[i]);
  }

  void Preempt() {
    const SequenceState& sequence = running_[--kept_];
    free_pages_ += sequence.pages - sequence.shared;
  }

  void Compute(std::size_t i, const SequenceState& sequence) {
    const std::int64_t tokens = std::min(Pending(sequence), budget_);
    plan_.work.push_back({i, tokens});
    budget_ -= tokens;
  }

  void Admit() {
    for (const SequenceState& sequence : waiting_) {
      const std::size_t i = kept_ + plan_.num_admitted;
      const bool is_full = static_cast<std::int64_t>(i) >= limits_.max_sequences;
      if (budget_ <= 0 || is_full || sequence.waits) return;
      // Leave a page for each that runs, or they would soon push one another out.
      const std::int64_t needed = PagesFor(sequence.known) - sequence.shared;
      if (needed + static_cast<std::int64_t>(i) > free_pages_) return;
      free_pages_ -= needed;
      ++plan_.num_admitted;
      Compute(i, sequence);
    }
  }

  const SchedulerLimits& limits_;
  const std::span<const SequenceState> running_;
  const std::span<const SequenceState> waiting_;
  std::size_t kept_;  // of the running
  std::int64_t free_pages_;
  std::int64_t budget_;
  StepPlan plan_;
};

}  // namespace

std::vector<std::size_t> AdmissionOrder(
    const SchedulerLimits& limits, std::size_t num_running, std::span<const std::int64_t> expected
) {
  std::vector<std::size_t> order(expected.size());
  std::iota(order.begin(), order.end(), 0U);
  if (static_cast<std::int64_t>(num_running + order.size()) > limits.max_sequences) return order;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return expected[a] > expected[b];
  });
  return order;
}

std::int64_t PagesFor(std::int64_t tokens) {
  return (tokens + kernels::kPageTokens - 1) / kernels::kPageTokens;
}

StepPlan PlanStep(
    const SchedulerLimits& limits,
    std::span<const SequenceState> running,
    std::span<const SequenceState> waiting
) {
  return Planner(limits, running, waiting).Plan();
}

}  // namespace millstream
