// SPDX-License-Identifier: Apache-2.0
// What a step computes, decided as a pure function of the sequences and the free pages.
//
// Sequences that decode come first, since each holds pages until it ends; what is left of the
// step's budget goes to prompts, in chunks. A sequence is admitted when there are pages for all its
// tokens. When a decoding sequence needs a page and there is none, the last admitted sequence gives
// its pages back and waits, to be computed anew.
//
// A sequence that begins as another does waits until the other's prompt is computed, and then
// shares its pages; those behind it wait too.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace millstream {

struct SchedulerLimits {
  std::int64_t step_tokens = 256;
  std::int64_t max_sequences = 256;
  std::int64_t free_pages = 0;
};

/// One sequence as the scheduler sees it.
struct SequenceState {
  std::int64_t known = 0;     // tokens, prompt and generated
  std::int64_t computed = 0;  // of them, in the cache; less than known
  std::int64_t pages = 0;     // held; of one that waits, those in the cache that it will begin with
  std::int64_t shared = 0;    // of these, those that others hold
  bool waits = false;         // another computes what it would begin with
};

/// Applied in this order: the last `num_preempted` running sequences give up their pages and go to
/// the front of those waiting, in their order; the first `num_admitted` waiting ones join the end
/// of the running and get pages for all their known tokens; then each of `work` gets the pages it
/// lacks and its tokens are computed.
struct StepPlan {
  struct Work {
    std::size_t sequence;  // of those running then
    std::int64_t tokens;   // the next ones not computed yet
  };
  std::size_t num_preempted = 0;
  std::size_t num_admitted = 0;
  std::vector<Work> work;
};

/// The order to begin what waits in, by how many tokens each may yet generate: as they came, as
/// long as more may come. Once all may run together the end is near, and what may take longest
/// begins first, so that no step at the end has few sequences to compute.
std::vector<std::size_t> AdmissionOrder(
    const SchedulerLimits& limits, std::size_t num_running, std::span<const std::int64_t> expected
);

/// Pages that hold so many tokens.
std::int64_t PagesFor(std::int64_t tokens);

/// `running` in order of admission; `waiting` in order of arrival, and what runs holds pages for
/// all its known tokens but perhaps the last. At most one of num_preempted and num_admitted is
/// above 0. The work is empty only if nothing runs and the first that waits does not fit into the
/// free pages (REQUIRES: that one does not wait for another), or a sequence that runs alone needs a
/// page more than there are.
StepPlan PlanStep(
    const SchedulerLimits& limits,
    std::span<const SequenceState> running,
    std::span<const SequenceState> waiting
);

}  // namespace millstream
