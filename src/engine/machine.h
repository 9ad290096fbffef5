// SPDX-License-Identifier: Apache-2.0
// What this process may use of the machine, control groups and affinity included.

#pragma once

#include <cstdint>

namespace millstream {

int UsableCores();
/// Memory that can still be taken without swapping or being killed.
std::uint64_t AvailableMemoryBytes();

}  // namespace millstream
