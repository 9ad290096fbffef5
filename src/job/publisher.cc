// SPDX-License-Identifier: Apache-2.0
#include "job/publisher.h"

#include <utility>
#include <vector>

namespace millstream {
namespace {

constexpr std::size_t kWaitingMax = 64;

}  // namespace

Publisher::Publisher(Ledger& ledger) : ledger_(ledger), waiting_(kWaitingMax) {
  thread_.Spawn([this](std::stop_token) { return Run(); });
}

Status Publisher::Add(FinishedPart part) {
  return waiting_.Push(std::move(part), {}) ? Status::OK()
                                            : Status::Cancelled("a part could not be published");
}

Status Publisher::Finish() {
  waiting_.Close();
  return thread_.Join();
}

Status Publisher::Run() {
  while (true) {
    const std::vector<FinishedPart> parts = waiting_.PopAll({});
    if (parts.empty()) return Status::OK();
    const Status published = ledger_.PublishParts(parts);
    if (published.ok()) continue;
    waiting_.Close();  // what still comes is refused
    return published;
  }
}

}  // namespace millstream
