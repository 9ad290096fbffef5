// SPDX-License-Identifier: Apache-2.0
// What this process may use of the machine, control groups and affinity included.

#pragma once

#include <cstdint>

namespace millstream {

int UsableCores();
/// Memory that can still be taken without swapping or being killed.
std::uint64_t AvailableMemoryBytes();
/// How many processes of this control group the kernel has killed for want of memory; 0 if it does
/// not say.
std::int64_t OomKills();

}  // namespace millstream
