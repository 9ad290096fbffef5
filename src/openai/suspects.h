// SPDX-License-Identifier: Apache-2.0
// Finds which of the requests that were in flight when a server died is to blame, by sending them
// again by themselves: a few at a time if there were many, and then alone.
//
// One that is answered is cleared. Groups have the square root of what died with them: whatever
// killed the server is found within three deaths, and a death that none is to blame for costs as
// many rounds. (engine/bisection.h halves groups instead, for engines that are quick to start.)

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace millstream {

/// Knows neither server nor clock. For one thread.
class Suspects {
 public:
  bool active() const { return !groups_.empty(); }
  /// What may be in flight now, and nothing else. REQUIRES: active().
  const std::vector<std::int64_t>& group() const { return groups_.back(); }
  /// All of them.
  std::vector<std::int64_t> ids() const;

  /// The server died with these in flight. Returns the one that is to blame, if that is known: it
  /// was alone, and in flight at a death before. It is no suspect any more.
  std::optional<std::int64_t> Die(const std::vector<std::int64_t>& in_flight);
  /// It was answered, or nobody waits for it; nothing if it is none.
  void Clear(std::int64_t id);

 private:
  void Split(const std::vector<std::int64_t>& ids, std::size_t size);

  std::vector<std::vector<std::int64_t>> groups_;  // the last one is sent
};

}  // namespace millstream
