// SPDX-License-Identifier: Apache-2.0
#include "engine/bisection.h"

#include <utility>

#include "base/check.h"

namespace millstream {

std::optional<RequestId> Bisection::Die(std::vector<RequestId> in_flight) {
  if (in_flight.empty()) return std::nullopt;
  int deaths_alone = 0;
  if (active()) {
    MS_CHECK(in_flight.size() <= group().size());
    deaths_alone = groups_.back().deaths_alone;
    groups_.pop_back();
  }
  if (in_flight.size() > 1) {
    PushHalves(std::move(in_flight));
    return std::nullopt;
  }
  if (deaths_alone > 0) return in_flight.front();
  groups_.push_back({std::move(in_flight), false, 1});
  return std::nullopt;
}

void Bisection::PushHalves(std::vector<RequestId> ids) {
  const auto middle = ids.begin() + static_cast<std::ptrdiff_t>((ids.size() + 1) / 2);
  groups_.push_back({std::vector<RequestId>(middle, ids.end())});
  ids.erase(middle, ids.end());
  groups_.push_back({std::move(ids), true});
}

void Bisection::Finish(RequestId id) {
  if (!active()) return;
  std::erase(groups_.back().ids, id);
  if (!groups_.back().ids.empty()) return;
  const bool is_other_to_blame = groups_.back().is_first_half;
  groups_.pop_back();
  // Their whole died and this half did not: the other one would, so it is halved without trying.
  if (is_other_to_blame && group().size() > 1) {
    std::vector<RequestId> ids = std::move(groups_.back().ids);
    groups_.pop_back();
    PushHalves(std::move(ids));
  }
}

}  // namespace millstream
