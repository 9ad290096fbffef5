// SPDX-License-Identifier: Apache-2.0
// The nearest valid name, for messages about a wrong one.

#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millstream {

/// The name with the fewest edits (insert, delete, replace, swap neighbours) from `name`, or an
/// empty view if none is near enough to be a slip of the pen. Points into `names`.
std::string_view NearestName(std::string_view name, std::span<const std::string_view> names);

/// ": did you mean 'x'?", or ": there are 'a', 'b', ..." for a few candidates, or nothing.
std::string DidYouMean(std::string_view name, std::span<const std::string> candidates);

}  // namespace millstream
