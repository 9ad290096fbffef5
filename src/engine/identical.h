// SPDX-License-Identifier: Apache-2.0
// Which requests have the same answer, so that one computation serves them all.

#pragma once

#include <string>

#include "engine/engine.h"

namespace millstream {

/// All that a greedy request's answer depends on, as bytes: requests with equal keys have equal
/// answers. Empty if the answer is drawn, which no two requests do alike, or a text is scored.
std::string GreedyKey(const Request& request);

}  // namespace millstream
