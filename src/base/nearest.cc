// SPDX-License-Identifier: Apache-2.0
#include "base/nearest.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

// Levenshtein's distance, one row of the table at a time.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::string> NearestName(
    std::string_view name, std::span<const std::string> candidates
) {
  std::optional<std::string> nearest;
  std::size_t least = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance =
        EditDistance(name.substr(0, 256), std::string_view(candidate).substr(0, 256));
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string DidYouMean(std::string_view name, std::span<const std::string> candidates) {
  if (const auto nearest = NearestName(name, candidates))
    return fmt::format(": did you mean '{}'?", *nearest);
  if (candidates.empty() || candidates.size() > 12) return {};
  return fmt::format(": there are '{}'", fmt::join(candidates, "', '"));
}

}  // namespace millstream
