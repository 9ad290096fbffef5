// SPDX-License-Identifier: Apache-2.0
// Rows that killed what ran them, as POISON entries of the journal name them: a request that killed
// its engine has its verdict, and a row that workers died of is not read again.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "data/reader.h"
#include "engine/engine.h"
#include "ledger/journal.h"
#include "pipeline/result_store.h"

namespace millstream {

/// The error code of a row that workers died of.
inline constexpr const char* kCrash = "crash";

/// What a request is blamed for, as an entry's body.
nlohmann::ordered_json PoisonOf(const ResultKey& key, const Completion& verdict);
/// The same of a row that workers died of, whatever they did with it. `how`: a signal's name, say.
nlohmann::ordered_json PoisonOf(const RowId& row, std::string_view how);

/// Thread-safe.
class BlamedRows final : public UnreadRows {
 public:
  BlamedRows() = default;
  /// Of a journal; entries of other kinds and of later versions say nothing.
  explicit BlamedRows(const std::vector<JournalEntry>& entries);

  void Note(const JournalEntry& entry);
  std::optional<Completion> VerdictOn(const ResultKey& key) const;
  std::optional<std::pair<RowId, RowError>> NextUnread(const RowId& from) const override;
  /// Whether one of the row's requests is to blame.
  bool HasVerdict(const RowId& row) const;

 private:
  using Place = std::tuple<RowId, std::string, std::int64_t>;  // row, step, sample

  mutable Mutex mutex_;
  std::map<Place, std::pair<std::string, Completion>> verdicts_ MS_GUARDED_BY(mutex_
  );  // by request
  std::map<RowId, RowError> unread_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
