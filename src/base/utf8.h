// SPDX-License-Identifier: Apache-2.0
// Whether bytes are text.
//
// Thread-safe.

#pragma once

#include <string_view>

namespace millstream {

/// True if `bytes` are valid UTF-8. (Arrow's own function needs a call before its first use,
/// without which it accepts anything.)
bool IsValidUtf8(std::string_view bytes);

}  // namespace millstream
