// SPDX-License-Identifier: Apache-2.0
// The files that a reader opens where an output is one file: the output, and its failed rows.
// Anybody may put a file of theirs in such a place, so a job journals what it is about to publish
// there, and touches nothing else that stands there.

#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "ledger/journal.h"
#include "ledger/ledger.h"
#include "nlohmann/json.hpp"
#include "storage/storage.h"

namespace millstream {

/// What a job published at one place, or was about to.
struct PublishedFiles {
  std::vector<FileMark> marks;  // the newest last
  /// False if it was begun by a version that journaled none: then any file may be the job's.
  bool are_all = true;

  bool MayHave(const FileMark& mark) const;
  bool MayHaveSize(std::uint64_t bytes) const;
};

/// `which` is "output" or "errors".
PublishedFiles PublishedAs(const JournalHistory& history, const std::string& which);
/// Reads a file through, of any size.
Result<FileMark> MarkOf(Storage& storage, const std::string& path);
/// The Conflict of a file in the way.
Status NotPublished(const std::string& path);

nlohmann::ordered_json ToJson(const FileMark& mark);
/// False if it is damaged.
bool ReadMark(const nlohmann::ordered_json& json, FileMark* mark);

}  // namespace millstream
