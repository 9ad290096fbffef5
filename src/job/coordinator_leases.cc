// SPDX-License-Identifier: Apache-2.0
// The table of leases, and what becomes of those of dead workers.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "job/coordinator.h"

namespace millstream {
namespace {

constexpr int kDeathsOfSuspects =
    2;                              // so often may workers die of what they had nothing to do with
constexpr std::int64_t kParts = 8;  // that suspect rows are divided into

}  // namespace

Coordinator::Lent& Coordinator::Add(
    std::int64_t lease, std::int64_t worker, const RowRange& range, const Risk& risk
) {
  const auto [added, is_new] = leases_.try_emplace(lease);
  MS_CHECK(is_new);
  Lent& lent = added->second;
  lent.range = range;
  lent.worker = worker;
  lent.begun = range.begin;
  lent.risk = risk;
  by_place_.emplace(range, lease);
  Worker& holder = workers_.at(worker);
  holder.leases.insert(lease);
  Rank(worker, holder, lent.left());
  return lent;
}

void Coordinator::Drop(std::int64_t lease) {
  Lent& lent = leases_.at(lease);
  SetWaiting(lease, lent, std::nullopt);
  if (lent.twin != 0) {
    Lent& twin = leases_.at(lent.twin);
    twin.twin = 0;
    Rank(twin.worker, workers_.at(twin.worker), twin.left());
    SetWaiting(lent.twin, twin, twin.waits_since);
  }
  Worker& holder = workers_.at(lent.worker);
  if (lent.twin == 0) Rank(lent.worker, holder, -lent.left());
  holder.leases.erase(lease);
  by_place_.erase({lent.range, lease});
  leases_.erase(lease);
}

// The second is a copy of the first: each has the same rows, and nobody takes any over.
void Coordinator::Pair(std::int64_t lease, std::int64_t copy) {
  for (const auto& [one, other] : {std::pair(lease, copy), std::pair(copy, lease)}) {
    Lent& lent = leases_.at(one);
    Rank(lent.worker, workers_.at(lent.worker), -lent.left());
    if (lent.waits_since) waiting_.erase({*lent.waits_since, one});
    lent.twin = other;
  }
}

// Ends a lease earlier, if need be at its begin. Returns the rest, which is then nobody's.
RowRange Coordinator::CutOff(std::int64_t lease, std::int64_t end) {
  Lent& lent = leases_.at(lease);
  RowRange kept = lent.range, rest = lent.range;
  kept.end = rest.begin = std::max(end, lent.range.begin);
  if (open_.IsDone(kept)) {  // or empty
    Drop(lease);
    return rest;
  }
  by_place_.erase({lent.range, lease});
  by_place_.emplace(kept, lease);
  const std::int64_t left = lent.left();
  lent.range = kept;
  lent.begun = std::min(lent.begun, kept.end);
  Rank(lent.worker, workers_.at(lent.worker), lent.left() - left);
  return rest;
}

// Its worker does not want it from there on.
void Coordinator::GiveBack(std::int64_t lease, std::int64_t end) {
  const Lent lent = leases_.at(lease);
  if (lent.twin != 0) {  // another has it all
    Drop(lease);
  } else {
    open_.Return(CutOff(lease, options_.divides ? end : lent.range.begin), lent.risk);
  }
}

void Coordinator::GiveBackNotBegun(std::int64_t lease) {
  const Lent& lent = leases_.at(lease);
  const bool may_cut = options_.divides || lent.begun == lent.range.begin;
  if (may_cut && lent.begun < lent.range.end && lent.twin == 0) GiveBack(lease, lent.begun);
}

// Nobody needs to begin what is done: a lease with rows left has the next to begin not done.
void Coordinator::SetBegun(Lent& lent, std::int64_t begun) {
  const RowRange& range = lent.range;
  const std::int64_t left = lent.left();
  begun = std::clamp(begun, range.begin, range.end);
  lent.begun = open_.NotDone({range.split, begun, range.end}).begin;
  if (lent.left() != left) Rank(lent.worker, workers_.at(lent.worker), lent.left() - left);
}

// Those with a twin are waited for by nobody else.
void Coordinator::SetWaiting(std::int64_t lease, Lent& lent, std::optional<Time> since) {
  if (lent.waits_since) waiting_.erase({*lent.waits_since, lease});
  lent.waits_since = since;
  if (since && lent.twin == 0) waiting_.emplace(*since, lease);
}

std::vector<std::int64_t> Coordinator::LeasesOf(const RowRange& range) const {
  std::vector<std::int64_t> leases;
  auto next = by_place_.lower_bound(
      {{range.split, range.end, range.end}, std::numeric_limits<std::int64_t>::min()}
  );
  while (next != by_place_.begin()) {
    const auto& [other, lease] = *--next;
    if (other.split != range.split || other.end <= range.begin) break;
    leases.push_back(lease);
  }
  return leases;
}

// Takes back what a worker holds, and forgets it.
void Coordinator::Bury(std::int64_t number, bool may_be_a_row, std::vector<RowRange>& blamed) {
  Worker& worker = workers_.at(number);
  const std::vector<std::int64_t> leases(worker.leases.begin(), worker.leases.end());
  for (const std::int64_t lease : leases) {
    Lent lent = leases_.at(lease);
    if (may_be_a_row) ++lent.risk.deaths;
    if (lent.twin != 0) leases_.at(lent.twin).risk.deaths += may_be_a_row ? 1 : 0;
    Drop(lease);
    if (lent.twin != 0) continue;
    if (may_be_a_row) {
      ReturnOfDead(lent, blamed);
    } else {
      open_.Return(lent.range, lent.risk);
    }
  }
  workers_.erase(number);
}

// Rows that workers died with twice are divided until one is left: all that they hold counts, as
// what they began last is not known. A single row is to blame only if workers died with it alone.
// Without row log, this costs working on them twice: in search of the row, and for the split's
// part.
void Coordinator::ReturnOfDead(const Lent& lent, std::vector<RowRange>& blamed) {
  const Risk& risk = lent.risk;
  const RowRange rest = open_.NotDone(lent.range);
  const bool becomes_suspect = !risk.is_suspect && risk.deaths >= kDeathsOfSuspects;
  if (rest.size() == 0 || (!risk.is_suspect && !becomes_suspect)) {
    open_.Return(lent.range, risk);
  } else if (rest.size() > 1) {
    const std::int64_t step = (rest.size() + kParts - 1) / kParts;
    for (std::int64_t begin = rest.begin; begin < rest.end; begin += step) {
      open_.Return({rest.split, begin, std::min(begin + step, rest.end)}, {0, true});
    }
  } else if (becomes_suspect) {
    open_.Return(lent.range, {0, true});
  } else if (risk.deaths < options_.deaths_max) {
    open_.Return(lent.range, risk);
  } else {
    blamed.push_back(rest);
    open_.Return(lent.range, {});
  }
}

// What a worker has left changes, or how long it takes for that.
void Coordinator::Rank(std::int64_t number, Worker& worker, std::int64_t more_left) {
  if (worker.left > 0) busy_.erase({worker.rank, number});
  worker.left += more_left;
  worker.rank = static_cast<double>(worker.left) / RateOf(worker);
  if (worker.left > 0) busy_.emplace(worker.rank, number);
}

double Coordinator::RateOf(const Worker& worker) const {
  if (worker.rate > 0) return worker.rate;
  return rate_ > 0 ? rate_ : 1;
}

}  // namespace millstream
