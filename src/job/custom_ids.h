// SPDX-License-Identifier: Apache-2.0
// The ids by which the lines of a batch are told apart.

#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/input.h"

namespace millstream {

/// Which values of the column `custom_id` stand in more than one row of the splits: how many, and
/// an example with two places, in words; or empty. Reads the input, twice if there are any. Keeps 8
/// bytes a row, of at most `most_rows`: of the rows beyond it says that they were not looked at.
Result<std::string> DoubledCustomIds(
    const Snapshot& snapshot,
    const InputOptions& input,
    const std::vector<Split>& splits,
    std::int64_t most_rows,
    std::stop_token stop
);
inline constexpr std::int64_t kCustomIdsMax = std::int64_t{1} << 24;

}  // namespace millstream
