// SPDX-License-Identifier: Apache-2.0
// What a worker gets that wants more: rows that nobody holds, but no more than its share of all
// that are left, as what it begins is its own; else some of those that the worker with the most
// time ahead of it has not begun; else a copy of what stands still.
#include <algorithm>
#include <limits>

#include "job/coordinator.h"

namespace millstream {
namespace {

using std::chrono::duration;

constexpr int kVictimsMax = 4;      // looked at for one report
constexpr double kMuchFaster = 3;   // a worker that takes all that another has not begun
constexpr double kStandsStill = 3;  // times what nearly all rows take

}  // namespace

void Coordinator::Lend(std::int64_t number, Worker& worker, std::int64_t wants, Time now) {
  if (wants <= 0) return;
  if (!worker.leases.empty() && leases_.at(*worker.leases.begin()).risk.is_suspect) return;
  if (const auto split = open_.TakeComplete()) Grant(number, *split, {}, 0);
  std::int64_t share = ShareOf(worker);
  while (wants > 0) {
    if (share <= 0) return;
    const auto free = open_.Take();
    if (!free) break;
    RowRange range = free->range;
    if (wants > share && open_.CountNotDone(range) >= share + options_.rows_min) {
      range = open_.NotDone(range);
      RowRange rest = range;
      rest.begin = range.end = std::min(range.begin + share, range.end);
      open_.Return(rest, free->risk);
    }
    Grant(number, range, free->risk, wants);
    wants -= open_.CountNotDone(range);
    share -= open_.CountNotDone(range);
  }
  if (worker.leases.empty()) {
    if (const auto suspect = open_.TakeSuspect()) {
      Grant(number, suspect->range, suspect->risk, wants);
      return;
    }
  }
  if (wants > 0 && !Steal(number, worker, wants, now)) Copy(number, worker, now);
}

// How many rows it may hold beyond those that it does: by its rate, of all that are left.
std::int64_t Coordinator::ShareOf(const Worker& worker) const {
  if (!options_.divides) return std::numeric_limits<std::int64_t>::max();
  const auto workers = std::max<std::int64_t>(num_expected_, std::ssize(workers_));
  const double of_mean = rate_ > 0 ? std::clamp(RateOf(worker) / rate_, 0.1, 10.0) : 1;
  const double share =
      static_cast<double>(open_.rows_left()) / static_cast<double>(workers) * of_mean;
  std::int64_t held = 0;
  for (const std::int64_t lease : worker.leases) {
    held += open_.CountNotDone(leases_.at(lease).range);
  }
  return std::max(static_cast<std::int64_t>(share), options_.rows_min) - held;
}

// What it wants it is taken to begin at once, until it says what it did.
void Coordinator::Grant(
    std::int64_t number, const RowRange& range, const Risk& risk, std::int64_t wants
) {
  Lent& lent = Add(++last_lease_, number, range, risk);
  SetBegun(lent, range.begin);
  SetBegun(lent, lent.begun + wants);
}

bool Coordinator::Steal(std::int64_t number, Worker& worker, std::int64_t wants, Time now) {
  int looked_at = 0;
  for (auto next = busy_.rbegin(); next != busy_.rend() && looked_at < kVictimsMax; ++next) {
    const Worker& victim = workers_.at(next->second);
    if (&victim == &worker) continue;
    ++looked_at;
    const auto last = std::find_if(victim.leases.rbegin(), victim.leases.rend(), [&](auto lease) {
      return leases_.at(lease).left() > 0;
    });
    if (last == victim.leases.rend()) continue;
    const Lent& lent = leases_.at(*last);
    const auto cut = PlaceToCut(victim, worker, lent, now);
    if (!cut) continue;
    const Risk risk = lent.risk;
    const RowRange stolen = open_.NotDone(CutOff(*last, *cut));
    Grant(number, stolen, risk, wants);
    return true;
  }
  return false;
}

// From where on a lease's rows are to change hands so that both workers are done at the same time.
std::optional<std::int64_t> Coordinator::PlaceToCut(
    const Worker& victim, const Worker& thief, const Lent& lent, Time now
) const {
  // What it has begun since its last report, and will until it hears of this.
  const double ahead =
      victim.rate * duration<double>(now - victim.heard_at + victim.interval).count();
  const std::int64_t left = victim.left - static_cast<std::int64_t>(ahead);
  if (left <= 0) return std::nullopt;
  const double faster = RateOf(thief) / RateOf(victim);
  auto share = static_cast<std::int64_t>(static_cast<double>(left) * faster / (1 + faster));
  if (!options_.divides) {
    const bool moves = lent.begun == lent.range.begin && share * 2 >= lent.range.size();
    return moves ? std::optional(lent.begun) : std::nullopt;
  }
  if (share < options_.rows_min || left - share < options_.rows_min) {
    share = faster >= kMuchFaster ? left : 0;
  }
  if (share == 0) return std::nullopt;
  const RowRange rest = open_.NotDone({lent.range.split, lent.begun, lent.range.end});
  return std::max(rest.begin, rest.end - share);
}

// A slow worker, of which a copy would be done late, waits as much longer before it makes one.
void Coordinator::Copy(std::int64_t number, Worker& worker, Time now) {
  const double slower = std::max(1.0, rate_ / RateOf(worker));
  const double limit_ms =
      std::max(static_cast<double>(options_.standstill_limit.count()), row_time_ms_ * kStandsStill);
  const duration<double, std::milli> standstill(limit_ms * slower);
  for (const auto& [since, lease] : waiting_) {
    if (now - since <= standstill) return;
    const Lent& lent = leases_.at(lease);
    if (lent.worker == number || (lent.risk.is_suspect && !worker.leases.empty())) continue;
    Grant(number, lent.range, lent.risk, lent.range.size());
    Pair(lease, last_lease_);
    return;
  }
}

}  // namespace millstream
