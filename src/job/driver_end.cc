// SPDX-License-Identifier: Apache-2.0
#include "job/driver_end.h"

#include "fmt/format.h"
#include "job/status.h"

namespace millstream {

Status EndOfDriver(const Ledger& ledger, const Status& failure) {
  const auto successor = ledger.Successor();
  if (!successor.ok() || !*successor) return failure;
  return Status::Cancelled(fmt::format(
      "another run ({}) has taken over {}: it goes on there, with all that this one had finished; "
      "wait for it, or stop it and run this again",
      HolderInWords((*successor)->dump()),
      ledger.layout().output
  ));
}

}  // namespace millstream
