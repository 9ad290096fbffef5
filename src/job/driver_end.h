// SPDX-License-Identifier: Apache-2.0
// How a driver that cannot go on ends.

#pragma once

#include "base/status.h"
#include "ledger/ledger.h"

namespace millstream {

/// What a failure comes to once the ledger has begun: Cancelled, saying who, if another run has
/// taken the output over since, whatever failed; else the failure itself.
Status EndOfDriver(const Ledger& ledger, const Status& failure);

}  // namespace millstream
