// SPDX-License-Identifier: Apache-2.0
// How a driver that cannot go on ends.

#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "ledger/ledger.h"
#include "storage/storage.h"

namespace millstream {

/// What a failure comes to once the ledger has begun: Cancelled, saying who, if another run has
/// taken the output over since, whatever failed; else the failure itself. If the disk is full, what
/// is finished is flushed and a STOP journaled first. REQUIRES: the ballast (disk_guard.h) is gone,
/// and nobody else uses the ledger.
Status EndOfDriver(Storage& storage, Ledger& ledger, const Status& failure);

/// Journals that the driver stopped because the disk has too little left.
Status RecordStop(Ledger& ledger, std::uint64_t free_bytes, const std::string& why);

}  // namespace millstream
