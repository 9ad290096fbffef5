// SPDX-License-Identifier: Apache-2.0
#include "job/open_rows.h"

#include <algorithm>

namespace millstream {

OpenRows::OpenRows(const std::vector<std::pair<std::int64_t, std::int64_t>>& splits) {
  splits_.reserve(splits.size());
  for (const auto& [split, num_rows] : splits) {
    splits_[split].num_rows = num_rows;
    rows_left_ += num_rows;
    Return({split, 0, num_rows}, {});
  }
}

bool OpenRows::IsWhole(const RowRange& range) const {
  const auto split = splits_.find(range.split);
  return split != splits_.end() && range.begin == 0 && range.end == split->second.num_rows;
}

RowRange OpenRows::NotDone(const RowRange& range) const {
  const auto split = splits_.find(range.split);
  if (split == splits_.end()) return {range.split, range.end, range.end};
  const auto& done = split->second.done;
  RowRange rest = range;
  auto next = done.upper_bound(rest.begin);
  if (next != done.begin()) rest.begin = std::max(rest.begin, std::prev(next)->second);
  next = done.lower_bound(rest.end);
  if (next != done.begin() && std::prev(next)->second >= rest.end) {
    rest.end = std::prev(next)->first;
  }
  if (rest.size() <= 0) return {range.split, range.end, range.end};
  return rest;
}

std::int64_t OpenRows::CountNotDone(const RowRange& range) const {
  if (!IsWhole(range)) return NotDone(range).size();
  const Split& split = splits_.at(range.split);
  return split.num_rows - split.num_done;
}

bool OpenRows::IsComplete(std::int64_t split) const {
  const auto found = splits_.find(split);
  return found != splits_.end() && found->second.num_done == found->second.num_rows;
}

bool OpenRows::NoteDone(RowRange range) {
  const auto found = splits_.find(range.split);
  if (found == splits_.end()) return false;
  Split& split = found->second;
  range.begin = std::max<std::int64_t>(range.begin, 0);
  range.end = std::min(range.end, split.num_rows);
  if (range.size() <= 0 || IsDone(range)) return false;
  rows_left_ += split.num_done;
  RowRange merged = range;
  auto next = split.done.upper_bound(range.begin);
  if (next != split.done.begin() && std::prev(next)->second >= range.begin) --next;
  while (next != split.done.end() && next->first <= range.end) {
    merged.begin = std::min(merged.begin, next->first);
    merged.end = std::max(merged.end, next->second);
    split.num_done -= next->second - next->first;
    next = split.done.erase(next);
  }
  split.done.emplace(merged.begin, merged.end);
  split.num_done += merged.size();
  rows_left_ -= split.num_done;
  Carve(range);
  return true;
}

void OpenRows::Return(const RowRange& range, const Risk& risk) {
  if (IsComplete(range.split)) {
    complete_.insert(range.split);
  } else {
    Add(range, risk);
  }
}

void OpenRows::Add(const RowRange& range, const Risk& risk) {
  const RowRange rest = IsWhole(range) ? range : NotDone(range);
  if (rest.size() == 0) return;
  free_[risk.is_suspect ? 1 : 0].emplace(Place{rest.split, rest.begin}, Rest{rest.end, risk});
}

std::optional<OpenRows::Free> OpenRows::TakeFirst(Ranges& ranges) {
  if (ranges.empty()) return std::nullopt;
  const auto first = ranges.begin();
  const Free taken{
      {first->first.first, first->first.second, first->second.end}, first->second.risk
  };
  ranges.erase(first);
  return taken;
}

std::optional<RowRange> OpenRows::TakeComplete() {
  if (complete_.empty()) return std::nullopt;
  const std::int64_t split = *complete_.begin();
  complete_.erase(complete_.begin());
  return RowRange{split, 0, splits_.at(split).num_rows};
}

// The end of the rows around a place that nobody holds; the place itself if it is none of them.
std::int64_t OpenRows::EndOfFree(const Ranges& ranges, const Place& place) {
  auto after = ranges.upper_bound(place);
  if (after == ranges.begin()) return place.second;
  const auto& [begin, rest] = *std::prev(after);
  return begin.first == place.first ? std::max(rest.end, place.second) : place.second;
}

std::optional<RowRange> OpenRows::Claim(const RowRange& range) {
  const std::int64_t split = range.split;
  RowRange rest = NotDone(range);
  if (rest.size() == 0) {
    if (!IsWhole(range) || complete_.erase(split) == 0) return std::nullopt;
    return range;
  }
  std::int64_t end = rest.begin;  // of what is free
  for (std::int64_t place = rest.begin; place < rest.end;) {
    std::int64_t next = place;
    for (const Ranges& free : free_) next = std::max(next, EndOfFree(free, {split, place}));
    if (next > place) end = std::min(next, rest.end);
    next = std::max(next, NotDone({split, place, rest.end}).begin);
    if (next == place) break;
    place = next;
  }
  if (end == rest.begin) return std::nullopt;
  const bool is_all = end == rest.end;
  rest.end = end;
  Carve(rest);
  return is_all && IsWhole(range) ? range : rest;
}

// These rows are no longer free.
void OpenRows::Carve(const RowRange& range) {
  for (Ranges& free : free_) {
    auto next = free.upper_bound({range.split, range.begin});
    if (next != free.begin()) --next;
    while (next != free.end() && next->first < Place{range.split, range.end}) {
      const auto [begin, rest] = *next;
      const RowRange was{begin.first, begin.second, rest.end};
      const bool overlaps = was.split == range.split && was.end > range.begin;
      // A whole split that is done in part stays whole.
      const bool stays = IsWhole(was) && IsDone(range) && !IsDone(was);
      if (!overlaps || stays) {
        ++next;
        continue;
      }
      free.erase(next++);
      Add({was.split, was.begin, std::min(was.end, range.begin)}, rest.risk);
      Add({was.split, std::max(was.begin, range.end), was.end}, rest.risk);
    }
  }
}

void OpenRows::Close(std::int64_t split) {
  const auto found = splits_.find(split);
  if (found == splits_.end()) return;
  rows_left_ -= found->second.num_rows - found->second.num_done;
  splits_.erase(found);
  complete_.erase(split);
  for (Ranges& free : free_) {
    free.erase(free.lower_bound({split, 0}), free.lower_bound({split + 1, 0}));
  }
}

}  // namespace millstream
