// SPDX-License-Identifier: Apache-2.0
// The job file that `millstream init` writes.

#pragma once

#include <string>
#include <string_view>

namespace millstream {

/// A commented job file that runs as it stands: the model that scripts/setup installs labels each
/// row of `input` (a path relative to the job file) by what stands in `column`. A plain text file
/// has the one column "text".
std::string JobTemplate(std::string_view input, std::string_view column);

}  // namespace millstream
