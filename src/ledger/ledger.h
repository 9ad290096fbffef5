// SPDX-License-Identifier: Apache-2.0
// The account of a job: its plan, what is published, and the final manifest. Knows files and
// counts, never rows.
//
// The output folder holds parts and nothing else; all of this stands beside it, in the state
// folder:
//   LOCK               held by the driver at work; names it
//   job.json           the spec's canonical form, versions, the plan's name; its creation is the
//                      job's birth
//   plan-0000-<hash>   the pinned input, splits, schema and settings, as the job layer wrote them
//   journal-0001       what each driver did, one file a driver's life
//   rows/000123/       engine results of a split whose part does not stand yet
//   intents/           what parts hold, written before they are published together
//   tmp/               unpublished files
//   success.json       the final counts
// docs/formats.md states each byte by byte.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "ledger/journal.h"
#include "ledger/row_log.h"
#include "nlohmann/json.hpp"
#include "storage/storage.h"

namespace millstream {

/// Where an output and its state lie.
struct OutputLayout {
  std::string output;  // the folder, or the single file
  std::string parts;   // folder of the parts
  std::string state;
  std::string suffix;  // of a part, with its dot
  bool is_single_file = false;

  /// `path` as the job file gives it, made absolute; a path that ends in `suffix` is one file.
  static OutputLayout Of(const std::string& path, const std::string& suffix);
  std::string PartPath(std::int64_t split) const;
};

/// What a part holds, or a sum of it over parts.
struct RowCounts {
  std::int64_t ok = 0;
  std::int64_t error = 0;
  std::int64_t skipped = 0;

  std::int64_t total() const { return ok + error + skipped; }
  RowCounts& operator+=(const RowCounts& other);
  friend bool operator==(const RowCounts&, const RowCounts&) = default;
};

/// A split's file, written and closed, not yet published.
struct FinishedPart {
  std::int64_t split = 0;
  std::string path;
  std::string hash;  // of its bytes, 16 hexadecimal digits of XXH3
  std::uint64_t bytes = 0;
  RowCounts counts;
  /// Which rows of the split are skipped: bit i of byte i / 8. Empty: none.
  std::string skipped_rows;
};

/// A part that stands, as its intent names it.
struct CommittedPart {
  std::string hash;
  std::uint64_t bytes = 0;
  RowCounts counts;
  std::string skipped_rows;  // only as Intents() gives it
};

/// What a driver found when it took a job over.
struct Recovery {
  std::int64_t adopted_parts = 0;  // that stood without an entry in the journal
};

/// Thread-safe once created or loaded.
class Ledger {
 public:
  /// Starts a job's account. AlreadyExists if one stands there.
  static Result<std::unique_ptr<Ledger>> Create(
      Storage& storage,
      OutputLayout layout,
      nlohmann::ordered_json job,
      const nlohmann::ordered_json& plan
  );
  /// Loads the account, or nothing if there is none. Fails if the output folder holds files of no
  /// job. Writes nothing.
  static Result<std::unique_ptr<Ledger>> Load(Storage& storage, OutputLayout layout);

  const OutputLayout& layout() const { return layout_; }
  const nlohmann::ordered_json& job() const { return job_; }
  std::string id() const { return job_.value("id", ""); }
  const nlohmann::ordered_json& plan() const { return plan_; }
  const JournalHistory& history() const { return history_; }

  /// Takes the job over, as its only driver: begins a journal, journals parts that a driver before
  /// published without saying so, and removes what it left half done. `holder` says who it is.
  /// REQUIRES: the lock at LockPath() is held since before Load().
  Result<Recovery> Begin(const nlohmann::ordered_json& holder);
  static std::string LockPath(const OutputLayout& layout) { return layout.state + "/LOCK"; }

  /// The parts that stand, by split. A Conflict if one is not as it was committed, by its name and
  /// size, or is gone.
  Result<std::map<std::int64_t, CommittedPart>> Parts() const;
  /// Reads a part whole: a Conflict if its bytes are not those that were committed.
  Status CheckPart(std::int64_t split, const CommittedPart& part) const;
  /// All that intents say, by split and the part's hash.
  Result<std::map<std::int64_t, std::map<std::string, CommittedPart>>> Intents() const;

  /// A name for an unpublished file. REQUIRES: begun, for this and all that writes.
  std::string TemporaryPath(const std::string& name) const;
  std::string TemporaryPath(std::int64_t split) const;
  /// Publishes finished parts, after one intent that names their hashes and counts, and journals
  /// them. A part that stands already is adopted and the file dropped; a Conflict if it is none of
  /// this job's.
  Status PublishParts(const std::vector<FinishedPart>& parts);
  /// Adds an entry to the journal, durably.
  Status Record(EntryType type, const nlohmann::ordered_json& body);
  /// Engine results of the splits whose parts do not stand.
  RowLog& rows() { return *rows_; }
  Result<LoadedRows> LoadRows(std::int64_t split) const;

  /// Whether what a reader opens stands, once all parts do: the single file, if the output is one.
  Result<bool> OutputStands() const;
  /// Publishes a finished file as the single output file.
  Status PublishOutput(const std::string& temporary);

  Status WriteSuccess(const nlohmann::ordered_json& manifest);
  Result<std::optional<nlohmann::ordered_json>> Success() const;

 private:
  Ledger(Storage& storage, OutputLayout layout) : storage_(storage), layout_(std::move(layout)) {}

  std::string RowsFolder() const { return layout_.state + "/rows"; }
  // The intent of the part that stands for a split, by its bytes.
  Result<CommittedPart> PartThatStands(std::int64_t split) const;
  Status JournalParts(const std::map<std::int64_t, CommittedPart>& parts);

  Storage& storage_;
  const OutputLayout layout_;
  nlohmann::ordered_json job_, plan_;
  JournalHistory history_;
  std::map<std::int64_t, CommittedPart> journaled_;  // by the drivers before
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<RowLog> rows_;
};

/// Moves an output and its state aside, to names that it returns, under which they are still one:
/// OUT.old-1 and OUT.old-1.millstream.
Result<std::vector<std::string>> MoveAside(Storage& storage, const OutputLayout& layout);
/// Ends a move that a crash left half done; does nothing if there is none.
Status FinishMoveAside(Storage& storage, const OutputLayout& layout);

}  // namespace millstream
