// SPDX-License-Identifier: Apache-2.0
#include "openai/suspects.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace millstream {

std::vector<std::int64_t> Suspects::ids() const {
  std::vector<std::int64_t> all;
  for (const auto& group : groups_) all.insert(all.end(), group.begin(), group.end());
  return all;
}

std::optional<std::int64_t> Suspects::Die(const std::vector<std::int64_t>& in_flight) {
  std::optional<std::int64_t> to_blame;
  const std::vector<std::int64_t> known = ids();
  std::set<std::int64_t> others(in_flight.begin(), in_flight.end());
  for (const std::int64_t id : known) others.erase(id);
  const bool has_group = active() && std::any_of(in_flight.begin(), in_flight.end(), [&](auto id) {
                           return std::find(group().begin(), group().end(), id) != group().end();
                         });
  if (has_group) {
    const std::vector<std::int64_t> died = groups_.back();
    groups_.pop_back();
    if (died.size() == 1 && others.empty()) {
      to_blame = died.front();
    } else {
      Split(died, 1);
    }
  }
  const auto root = static_cast<std::size_t>(std::sqrt(static_cast<double>(others.size())));
  Split({others.begin(), others.end()}, std::max<std::size_t>(1, root));
  return to_blame;
}

void Suspects::Split(const std::vector<std::int64_t>& ids, std::size_t size) {
  for (auto begin = ids.begin(); begin != ids.end();) {
    const auto end = begin + std::min(static_cast<std::ptrdiff_t>(size), ids.end() - begin);
    groups_.emplace_back(begin, end);
    begin = end;
  }
}

void Suspects::Clear(std::int64_t id) {
  for (auto& group : groups_) std::erase(group, id);
  std::erase_if(groups_, [](const auto& group) { return group.empty(); });
}

}  // namespace millstream
