// SPDX-License-Identifier: Apache-2.0
#include "job/held_leases.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace millstream {
namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr double kRateSeconds = 3;     // what the rate is the mean of, about
constexpr double kIntervalsAhead = 2;  // between reports, for which there should be rows
constexpr std::int64_t kMostOf = 20;   // all but one in so many are nearly all

}  // namespace

bool HeldLeases::IsWhole(const RowRange& range) const {
  return range.begin == 0 && range.end == splits_[static_cast<std::size_t>(range.split)].num_rows;
}

Result<std::vector<Piece>> HeldLeases::Next(int readers, std::stop_token stop) {
  MutexLock lock(mutex_);
  changed_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
    return gives_back_ || !waiting_.empty();
  });
  if (gives_back_) return std::vector<Piece>();
  if (waiting_.empty()) return Status::Cancelled("stopped on request");
  std::vector<Piece> pieces;
  for (std::size_t run = LengthOfRun(waiting_.size(), readers); run > 0; --run) {
    const std::int64_t number = *waiting_.begin();
    waiting_.erase(waiting_.begin());
    Held& held = held_.at(number);
    held.is_given_out = true;
    const RowRange range = held.range;
    if (!options_.divides) Move(held, range.end, range.end);
    const Split& split = splits_[static_cast<std::size_t>(range.split)];
    pieces.push_back({number, split, range.begin, range.end});
  }
  return pieces;
}

std::int64_t HeldLeases::EndOf(std::int64_t piece) const {
  MutexLock lock(mutex_);
  return held_.at(piece).range.end;
}

bool HeldLeases::Begin(const RowRef& row) {
  const Time now = options_.now();
  MutexLock lock(mutex_);
  Held& held = held_.at(row.piece);
  if (row.index >= held.range.end) return false;
  Move(held, row.index + 1, held.range.end);
  held.under_way.emplace_hint(held.under_way.end(), row.index, now);
  ++under_way_;
  return true;
}

void HeldLeases::NoteFinished(const std::vector<RowRef>& rows) {
  if (!options_.divides) return;
  const Time now = options_.now();
  MutexLock lock(mutex_);
  for (const RowRef& row : rows) {
    Held& held = held_.at(row.piece);
    const auto found = held.under_way.find(row.index);
    if (found == held.under_way.end()) {
      NoteGone(held, row.index);
      continue;
    }
    const auto took = duration_cast<milliseconds>(now - found->second).count();
    const auto log2 = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(took)));
    ++row_times_[std::min(log2, row_times_.size() - 1)];
    held.under_way.erase(found);
    --under_way_;
  }
}

// The engine needs others in its place.
void HeldLeases::NoteGone(Held& held, std::int64_t row) {
  if (row < held.begun || row >= held.range.end) return;
  const bool had_few = left_ < few_left_;
  left_ -= held.gone.insert(row).second ? 1 : 0;
  if (!had_few && left_ < few_left_) changed_.notify_all();
}

bool HeldLeases::NoteEnd(const Piece& piece) {
  MutexLock lock(mutex_);
  Held& held = held_.at(piece.number);
  const bool is_whole = !held.is_ended && IsWhole(held.range);
  held.ended_at = options_.now();
  Move(held, held.range.end, held.range.end);  // so that it stays whole
  if (!is_whole) Finish(piece.number);
  return is_whole;
}

void HeldLeases::NotePart(const Piece& piece) {
  MutexLock lock(mutex_);
  Finish(piece.number);
}

void HeldLeases::Finish(std::int64_t lease) {
  const auto found = held_.find(lease);
  if (found->second.is_ended) {
    held_.erase(found);
  } else {
    found->second.is_finished = true;
  }
  has_ends_ = true;
  changed_.notify_all();
}

// Parts are held back while more rows may tell whether their model is broken.
bool HeldLeases::WaitForEnds(std::stop_token stop) {
  MutexLock lock(mutex_);
  const auto is_idle = [this]() MS_REQUIRES(mutex_) {
    return gets_nothing_ && !held_.empty() &&
           std::all_of(held_.begin(), held_.end(), [](const auto& entry) {
             return entry.second.is_finished;
           });
  };
  changed_.wait(lock, stop, [&]() MS_REQUIRES(mutex_) { return has_ends_ || is_idle(); });
  has_ends_ = false;
  return is_idle() && std::exchange(gets_nothing_, false);
}

std::vector<Lease> HeldLeases::Finished() const {
  MutexLock lock(mutex_);
  std::vector<Lease> leases;
  for (const auto& [number, held] : held_) {
    if (held.is_finished && !IsWhole(held.range)) leases.push_back({number, held.range});
  }
  return leases;
}

void HeldLeases::Drop(const std::vector<Lease>& leases) {
  MutexLock lock(mutex_);
  for (const Lease& lease : leases) held_.erase(lease.number);
  if (!leases.empty()) SetNews();
}

void HeldLeases::NotePublished(const std::set<std::int64_t>& splits) {
  if (splits.empty()) return;
  MutexLock lock(mutex_);
  std::erase_if(held_, [&](const auto& entry) {
    return entry.second.is_finished && splits.contains(entry.second.range.split);
  });
  SetNews();
}

void HeldLeases::Fill(WorkerReport& report) {
  const Time now = options_.now();
  const std::int64_t room = options_.room ? options_.room() : 0;
  MutexLock lock(mutex_);
  has_news_ = false;
  NoteRate(report.rows_finished, now);
  report.row_time = RowTime();
  for (const auto& [number, held] : held_) {
    if (held.is_ended) continue;
    HeldLease& said = report.held.emplace_back();
    said.lease = {number, held.range};
    said.begun = held.begun;
    if (held.ended_at != Time{}) {
      said.oldest = duration_cast<milliseconds>(now - held.ended_at);
    } else if (!held.under_way.empty()) {
      said.oldest = duration_cast<milliseconds>(now - held.under_way.begin()->second);
    }
  }
  if (gives_back_) return;
  // Until the answer to the report after this one comes; and should all that is under way finish
  // at once, as much again.
  const double seconds = duration<double>(options_.interval).count() * kIntervalsAhead;
  const auto soon = static_cast<std::int64_t>(rate_ * seconds);
  const std::int64_t enough = std::max<std::int64_t>(1, room + std::max(soon, under_way_));
  report.wants_rows = std::max<std::int64_t>(enough - left_, 0);
  few_left_ = (enough + 1) / 2;
}

void HeldLeases::Apply(const WorkerReport& report, const WorkerOrders& orders) {
  MutexLock lock(mutex_);
  for (const Lease& lease : orders.take) {
    const auto [added, is_new] = held_.try_emplace(lease.number);
    if (!is_new) continue;
    Held& held = added->second;
    held.range = lease.range;
    held.begun = lease.range.begin;
    left_ += lease.range.size();
    waiting_.insert(lease.number);
  }
  for (const Lease& lease : orders.shorten) {
    const auto found = held_.find(lease.number);
    if (found == held_.end()) continue;
    Held& held = found->second;
    Move(held, held.begun, std::clamp(lease.range.end, held.begun, held.range.end));
  }
  for (const std::int64_t lease : orders.end) End(lease);
  gets_nothing_ = report.wants_rows > 0 && orders.take.empty();
  changed_.notify_all();
}

void HeldLeases::End(std::int64_t lease) {
  const auto found = held_.find(lease);
  if (found == held_.end()) return;
  Held& held = found->second;
  Move(held, held.range.begin, held.range.begin);
  if (held.is_given_out && !held.is_finished) {
    held.is_ended = true;
  } else {
    waiting_.erase(lease);
    held_.erase(found);
  }
}

void HeldLeases::GiveBack() {
  MutexLock lock(mutex_);
  gives_back_ = true;
  few_left_ = 0;
  waiting_.clear();
  for (auto& [number, held] : held_) Move(held, held.begun, held.begun);
  changed_.notify_all();
}

void HeldLeases::WaitForNews(std::stop_token stop) {
  MutexLock lock(mutex_);
  changed_.wait_for(lock, stop, options_.interval, [this]() MS_REQUIRES(mutex_) {
    return has_news_ || (left_ < few_left_ && !gets_nothing_);
  });
}

void HeldLeases::Move(Held& held, std::int64_t begun, std::int64_t end) {
  const bool had_few = left_ < few_left_;
  left_ -= held.left();
  held.begun = begun;
  held.range.end = end;
  held.gone.erase(held.gone.begin(), held.gone.lower_bound(begun));
  held.gone.erase(held.gone.lower_bound(end), held.gone.end());
  left_ += held.left();
  if (!had_few && left_ < few_left_) changed_.notify_all();
}

// Time without rows to begin says nothing of how fast rows would be done.
void HeldLeases::NoteRate(std::int64_t rows_finished, Time now) {
  const double seconds = rate_at_ ? duration<double>(now - *rate_at_).count() : 0;
  if (seconds > 0) {
    const double rate = static_cast<double>(rows_finished - rows_finished_) / seconds;
    if (left_ > 0 || rate > rate_) rate_ += seconds / (seconds + kRateSeconds) * (rate - rate_);
  }
  rate_at_ = now;
  rows_finished_ = rows_finished;
}

milliseconds HeldLeases::RowTime() const {
  std::int64_t rest = 0;
  for (const std::int64_t count : row_times_) rest += count;
  const std::int64_t most = rest - rest / kMostOf;
  std::int64_t below = 0;
  for (std::size_t log2 = 0; log2 < row_times_.size(); ++log2) {
    below += row_times_[log2];
    if (below > 0 && below >= most) return milliseconds(std::int64_t{1} << log2);
  }
  return milliseconds(0);
}

void HeldLeases::SetNews() {
  has_news_ = true;
  changed_.notify_all();
}

}  // namespace millstream
