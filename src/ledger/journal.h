// SPDX-License-Identifier: Apache-2.0
// What a job's drivers did, for good: one file a driver's life, none ever written by two.
//
// A new journal names the one before it, how much of that is valid and the hash of so much. What a
// driver that was taken for dead adds later is thereby ignored.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "ledger/record.h"
#include "nlohmann/json.hpp"
#include "storage/storage.h"

namespace millstream {

/// The kinds of entries. Their numbers are part of the format.
enum class EntryType : std::uint8_t {
  kOpen = 1,        // job, epoch, previous {epoch, length, hash}, holder
  kPart = 2,        // parts: [{split, hash, bytes, ok, error, skipped}]
  kReplace = 3,     // parts: [{split, old, new, ...}]: about to be exchanged
  kSpecAccept = 4,  // a changed spec becomes the job's
  kAppend = 5,      // a further plan generation
  kPoison = 6,      // a row that killed its engine, or workers
  kDrain = 8,       // stopped on request
  kBreaker = 9,     // stopped by the circuit breaker
  kDone = 10,       // success.json of a generation stands
  kStop = 11,       // stopped because the disk is full
  kOutput = 12,     // output, errors: {hash, bytes}: about to be published as the single files
};

struct JournalEntry {
  EntryType type = EntryType::kOpen;
  std::uint32_t epoch = 0;
  nlohmann::ordered_json body;
};

/// All that drivers of a job wrote down, oldest first.
struct JournalHistory {
  std::vector<JournalEntry> entries;
  std::uint32_t last_epoch = 0;  // of any journal, also of one that was never begun
  /// The newest journal that was begun; the next one names it. 0: none.
  std::uint32_t previous_epoch = 0;
  std::uint64_t previous_length = 0;
  std::string previous_hash;
};

/// Reads the journals in a state folder. A Conflict if one is damaged or missing.
Result<JournalHistory> ReadJournals(Storage& storage, const std::string& state);

/// The journal of one driver. Thread-safe.
class Journal {
 public:
  /// Begins a journal with the next epoch that is free; `open` goes into its first entry. `history`
  /// gets what other drivers wrote before this one took its name: what they write later is ignored,
  /// and IsLatest() tells them so. Cancelled if yet another driver begins meanwhile.
  static Result<std::unique_ptr<Journal>> Begin(
      Storage& storage,
      const std::string& state,
      JournalHistory& history,
      nlohmann::ordered_json open
  );
  std::uint32_t epoch() const { return epoch_; }
  /// Whether no other driver has begun since.
  Result<bool> IsLatest() const;
  /// Adds an entry and makes it durable. `body` is an object, which gets the time as `at`, in
  /// seconds since 1970.
  Status Add(EntryType type, nlohmann::ordered_json body);

 private:
  Journal(
      Storage& storage, std::string state, std::unique_ptr<RecordWriter> writer, std::uint32_t epoch
  )
      : storage_(storage), state_(std::move(state)), writer_(std::move(writer)), epoch_(epoch) {}

  Storage& storage_;
  const std::string state_;
  Mutex mutex_;
  const std::unique_ptr<RecordWriter> writer_;
  const std::uint32_t epoch_;
};

/// 16 hexadecimal digits of XXH3.
std::string HashOf(std::string_view bytes);

}  // namespace millstream
