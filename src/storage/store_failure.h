// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/status.h"
#include "storage/object_store.h"

namespace millstream {

/// The Status of a request that did not come to its end: what could not be done, to which object,
/// why, and what to do. IsNotFound() and IsDiskTrouble() (the store was not there: the job can be
/// resumed) tell of it. REQUIRES: the reply is not kDone.
Status StoreFailure(const StoreReply& reply, std::string_view operation, std::string_view path);

}  // namespace millstream
