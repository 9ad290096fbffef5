// SPDX-License-Identifier: Apache-2.0
// A command as a person writes it, cut into words.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millstream {

/// The words of a command line, as a POSIX shell quotes them: '...', "...", \x. No shell runs it:
/// Invalid, in words, for what one would have to do, such as $HOME or a pipe.
Result<std::vector<std::string>> CommandWords(std::string_view text);

}  // namespace millstream
