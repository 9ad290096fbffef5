// SPDX-License-Identifier: Apache-2.0
#include "job/driver_end.h"

#include "fmt/format.h"
#include "job/status.h"

namespace millstream {

namespace {

// The disk is full. What cannot be written even so is computed again.
Status EndOfFullDisk(Storage& storage, Ledger& ledger, const Status& failure) {
  const auto space = storage.Space(ledger.layout().state);
  const std::uint64_t free_bytes = space.ok() ? space->free_bytes : 0;
  if (ledger.has_begun()) {
    (void)ledger.rows().Sync();
    (void)RecordStop(ledger, free_bytes, failure.message());
  }
  return failure.WithMessage(fmt::format(
      "{} ({:.1f} MB are free now)", failure.message(), static_cast<double>(free_bytes) / 1e6
  ));
}

}  // namespace

Status RecordStop(Ledger& ledger, std::uint64_t free_bytes, const std::string& why) {
  return ledger.RecordEnd(EntryType::kStop, {{"free_bytes", free_bytes}, {"why", why}});
}

Status EndOfDriver(Storage& storage, Ledger& ledger, const Status& failure) {
  const auto successor = ledger.Successor();
  if (!successor.ok() || !*successor) {
    return IsDiskFull(failure) ? EndOfFullDisk(storage, ledger, failure) : failure;
  }
  return Status::Cancelled(fmt::format(
      "another run ({}) has taken over {}: it goes on there, with all that this one had finished; "
      "wait for it, or stop it and run this again",
      HolderInWords((*successor)->dump()),
      ledger.layout().output
  ));
}

}  // namespace millstream
