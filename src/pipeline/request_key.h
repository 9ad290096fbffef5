// SPDX-License-Identifier: Apache-2.0
// The name of a sample's stream of random draws.

#pragma once

#include <cstdint>
#include <string_view>

#include "base/random.h"
#include "data/row.h"

namespace millstream {

/// A hash of (seed, row id, step id, sample): never of a row's place in a batch or split.
RandomKey SampleKey(std::int64_t seed, RowId row, std::string_view step, std::int64_t sample);

}  // namespace millstream
