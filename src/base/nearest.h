// SPDX-License-Identifier: Apache-2.0
// The nearest valid name, for messages about a wrong one.

#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace millstream {

/// The candidate with the least edit distance to `name`, if one is near enough to be a slip of the
/// pen.
std::optional<std::string> NearestName(
    std::string_view name, std::span<const std::string> candidates
);

/// ": did you mean 'x'?", or ": there are 'a', 'b', ..." for a few candidates, or nothing.
std::string DidYouMean(std::string_view name, std::span<const std::string> candidates);

}  // namespace millstream
