// SPDX-License-Identifier: Apache-2.0
// What a sample of a row is known by.

#pragma once

#include <cstdint>
#include <string_view>

#include "base/hash128.h"
#include "base/random.h"
#include "data/row.h"
#include "engine/engine.h"

namespace millstream {

/// A hash of (seed, row id, step id, sample): never of a row's place in a batch or split.
RandomKey SampleKey(std::int64_t seed, RowId row, std::string_view step, std::int64_t sample);

/// A hash of all that a request's answer depends on: its tokens, sampling, constraint and draws,
/// and `model`, which stands for the weights and how they are computed.
Hash128 HashOfRequest(const Request& request, std::string_view model);

}  // namespace millstream
