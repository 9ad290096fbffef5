// SPDX-License-Identifier: Apache-2.0
// Publishes finished parts in groups, on a thread of its own: a disk's syncs take longer than a
// part without a model takes to compute, and parts that are ready together share them.

#pragma once

#include "base/channel.h"
#include "base/status.h"
#include "base/task_scope.h"
#include "ledger/ledger.h"

namespace millstream {

/// Add() may be called from any thread.
class Publisher {
 public:
  /// `ledger` must outlive it.
  explicit Publisher(Ledger& ledger);
  ~Publisher() { waiting_.Close(); }
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  /// Hands a part over; waits while too many wait. Cancelled once a publication has failed:
  /// Finish() says why.
  Status Add(FinishedPart part);
  /// Waits until all that were added stand, or returns the first failure.
  Status Finish();

 private:
  Status Run();

  Ledger& ledger_;
  Channel<FinishedPart> waiting_;
  TaskScope thread_;  // last: joined before the rest goes
};

}  // namespace millstream
