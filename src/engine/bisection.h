// SPDX-License-Identifier: Apache-2.0
// Finds which of the requests that were in flight when an engine died is to blame, by running them
// again in ever smaller groups.
//
// A group that finishes is exonerated; one that dies is halved; a request that was alone in the
// engine at two deaths is condemned. For each of those at most log2(K) + 2 deaths of K suspects,
// the first included. A pure state machine: knows neither process nor clock.
//
// Owned by one thread.

#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "engine/engine.h"

namespace millstream {

class Bisection {
 public:
  /// Whether there are suspects: then nothing but group() may be in the engine.
  bool active() const { return !groups_.empty(); }
  /// What to run now.
  const std::vector<RequestId>& group() const { return groups_.back().ids; }

  /// The engine died with a cause while these ran: group(), or what is left of it, if active().
  /// Returns the request that is condemned, if one is: it is no longer in any group.
  std::optional<RequestId> Die(std::vector<RequestId> in_flight);
  /// A request of the group has finished.
  void Finish(RequestId id);

 private:
  struct Group {
    std::vector<RequestId> ids;
    bool is_first_half = false;  // its other half lies below it
    int deaths_alone = 0;
  };
  void PushHalves(std::vector<RequestId> ids);

  std::vector<Group> groups_;  // the last one runs
};

}  // namespace millstream
