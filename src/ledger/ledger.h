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
//   superseded/        parts that a retry replaced
//   rows/000123/       engine results of a split whose part does not stand yet
//   errors/            the failed rows of a split whose output leaves them out
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

#include "base/mutex.h"
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
  std::string errors;  // the single file of failed rows, which the output leaves out; or empty

  /// `path` as the job file gives it, made absolute; a path that ends in `suffix` is one file.
  static OutputLayout Of(const std::string& path, const std::string& suffix);
  std::string PartPath(std::int64_t split) const;
  /// The name of its single file of failed rows once MoveAside() has given this output its name.
  static std::string ErrorsAside(const std::string& errors, const OutputLayout& aside);
  /// The file of a split's failed rows, by the hash of its bytes.
  std::string ErrorsPath(std::int64_t split, const std::string& hash) const;
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

/// What a file is known by.
struct FileMark {
  std::string hash;  // of its bytes, 16 hexadecimal digits of XXH3
  std::uint64_t bytes = 0;
  friend bool operator==(const FileMark&, const FileMark&) = default;
};

/// A part that stands, as its intent names it.
struct CommittedPart {
  FileMark file;
  RowCounts counts;
  /// The failed rows' own file, where the output leaves them out and there are any.
  std::optional<FileMark> errors;
  /// Which rows of the split are skipped: bit i of byte i / 8. Empty: none, or not known: only
  /// Intents() gives it.
  std::string skipped_rows;
};
/// Whether they are the same part, as far as the journal knows: parts of the same bytes may account
/// for rows that they do not show in other ways.
bool IsSame(const CommittedPart& a, const CommittedPart& b);
/// All that intents say, by split.
using PartIntents = std::map<std::int64_t, std::vector<CommittedPart>>;
/// The intent of a split's part; nullptr if there is none.
const CommittedPart* FindIntent(
    const PartIntents& intents, std::int64_t split, const CommittedPart& part
);

/// A split's files, written and closed, not yet published.
struct FinishedPart {
  std::int64_t split = 0;
  std::string path, errors_path;
  CommittedPart committed;
};

/// A file that a reader opens, written and closed, not yet published.
struct FinishedFile {
  std::string path;
  FileMark mark;
};

struct PublishedFiles;

/// What a driver is there for. Each has row logs of its own.
enum class Work { kRun, kRetry };

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
  /// Further generations of the plan, in order.
  const std::vector<nlohmann::ordered_json>& more_plans() const { return more_plans_; }
  /// The job's spec as it is now, {spec, models, ...}: job(), or the last that was accepted since;
  /// and its number, from 1.
  const nlohmann::ordered_json& current_spec() const;
  int spec_version() const;
  const JournalHistory& history() const { return history_; }

  /// Takes the job over, as its only driver: begins a journal, journals parts that a driver before
  /// published without saying so, and removes what it left half done. `holder` says who it is.
  /// Returns the parts that stand, all journaled: one that a driver taken for dead publishes after
  /// that is met by PublishParts. Cancelled if another driver changed the job's spec or plan since
  /// Load(). REQUIRES: the lock at LockPath() is held since before Load().
  Result<std::map<std::int64_t, CommittedPart>> Begin(
      const nlohmann::ordered_json& holder, Work work = Work::kRun
  );
  /// The OPEN entry of the driver that has taken the job over since Begin(), an empty object if it
  /// died before it wrote one, nothing if none has: then an operation that failed (unpublished
  /// files are gone, say) failed because of it.
  Result<std::optional<nlohmann::ordered_json>> Successor() const;
  bool has_begun() const { return rows_ != nullptr; }
  std::uint32_t epoch() const { return epoch_; }
  /// Works for the driver that has begun with this epoch: publishes parts and keeps row logs, and
  /// journals nothing. REQUIRES: no other worker of the epoch has the number, which is at least 2.
  void Join(std::uint32_t epoch, std::int64_t worker);
  bool is_worker() const { return rows_ && !journal_; }
  /// Makes all that is logged of a split durable, whoever logged it: an answer that was found there
  /// is known to others, and no power cut may take it back.
  Status SyncRows(std::int64_t split);
  static std::string LockPath(const OutputLayout& layout) { return layout.state + "/LOCK"; }

  /// The parts that stand, by split. A Conflict if one is not as it was committed, by its name and
  /// size, or is gone; Cancelled if another driver has changed them since Load().
  Result<std::map<std::int64_t, CommittedPart>> Parts() const;
  /// What the parts that stand hold together, as far as this driver journaled them or knows it from
  /// the journal: all, once it is done.
  RowCounts counts() const;
  /// Reads a part whole: a Conflict if its bytes are not those that were committed.
  Status CheckPart(std::int64_t split, const CommittedPart& part) const;
  Result<PartIntents> Intents() const;

  /// A name for an unpublished file. REQUIRES: begun, for this and all that writes.
  std::string TemporaryPath(const std::string& name) const;
  /// Publishes finished parts, after one intent that names their hashes and counts, and journals
  /// them. A part that stands already is adopted and the file dropped; a Conflict if it is none of
  /// this job's.
  Result<std::map<std::int64_t, CommittedPart>> PublishParts(const std::vector<FinishedPart>& parts
  );
  /// Its two halves: a worker publishes, and its driver then journals what stands, and drops the
  /// splits' row logs.
  Result<std::map<std::int64_t, CommittedPart>> Publish(const std::vector<FinishedPart>& parts);
  Status NotePublished(const std::map<std::int64_t, CommittedPart>& parts);
  /// Puts finished parts in the place of those that stand, each at once: a reader finds the old one
  /// or the new one. The old ones are kept in superseded/. An error if another driver has taken the
  /// job over, as Successor() tells then: its parts stand.
  Status ReplaceParts(const std::vector<FinishedPart>& parts);
  /// Takes the job over as Begin() does, and removes what was replaced, and failed rows' files that
  /// no part names any more.
  Status Prune(const nlohmann::ordered_json& holder);
  /// Ends a retry: its row logs go.
  Status EndRetry();
  /// Adds a further generation of the plan, durably.
  Status AppendPlan(const nlohmann::ordered_json& plan);
  /// Adds an entry to the journal, durably; a worker keeps it for its driver to do so.
  Status Record(EntryType type, const nlohmann::ordered_json& body);
  /// What a worker has kept since the last call.
  std::vector<JournalEntry> TakeEntries();
  /// Adds the last entry of this driver, with nothing else at work: to another journal of its own
  /// if this one's file has failed.
  Status RecordEnd(EntryType type, const nlohmann::ordered_json& body);
  /// Engine results of the splits whose parts do not stand.
  RowLog& rows() { return *rows_; }
  Result<LoadedRows> LoadRows(std::int64_t split) const;
  /// The splits of which there is something to load.
  Result<std::vector<std::int64_t>> LoggedSplits() const;

  /// Whether what a reader opens stands, once all parts do: the single file, if the output is one,
  /// and that of its failed rows.
  Result<bool> OutputStands() const;
  /// A Conflict if something stands there that this job did not publish, by its size.
  Status CheckOutput() const;
  /// Reads what was published last there whole: a Conflict if it has other bytes.
  Status CheckOutputBytes() const;
  /// Publishes the finished single file, and that of its failed rows if it has one, in the place of
  /// earlier ones. A Conflict, which leaves it where it is, if something stands there that this job
  /// did not publish.
  Status PublishOutput(const FinishedFile& output, const std::optional<FinishedFile>& errors);

  /// Writes the final manifest as its next generation; `manifest` gets its number.
  Status WriteSuccess(nlohmann::ordered_json manifest);
  Result<std::optional<nlohmann::ordered_json>> Success() const;
  /// Whether the manifest that stands was written after the last change of any part.
  bool success_is_current() const;

 private:
  Ledger(Storage& storage, OutputLayout layout) : storage_(storage), layout_(std::move(layout)) {}

  std::string RowsFolder() const {
    return layout_.state + (work_ == Work::kRun ? "/rows" : "/retry");
  }
  // Takes what the entries say of plans and parts.
  Status Replay(JournalHistory history);
  void Commit(std::int64_t split, CommittedPart part);
  // A Conflict because another driver was at work meanwhile is none.
  Status UnlessOthersWork(const Status& failure) const;
  Result<std::map<std::int64_t, CommittedPart>> FindParts() const;
  // Exchanges, unless another driver has begun: what it found is to stay. A Conflict if what stands
  // there is none of `known`.
  Status ExchangeAsLatest(
      const std::string& from, const std::string& to, const PublishedFiles* known = nullptr
  );
  Status PublishFile(const FinishedFile& file, const std::string& which, const std::string& path);
  // Fails if another driver has begun since.
  Status CheckLatest() const;
  Status RemoveAsLatest(const std::string& path);
  Status KeepOld(std::int64_t split, const CommittedPart& old);
  Result<nlohmann::ordered_json> ReadPlan(const std::string& name) const;
  // Writes a plan, and returns its name.
  Result<std::string> WritePlan(const nlohmann::ordered_json& plan, std::size_t generation);
  // The intent of the part that stands for a split, by its bytes.
  Result<CommittedPart> PartThatStands(std::int64_t split) const;
  Status WriteIntent(std::int64_t first_split, const nlohmann::ordered_json& intent);
  Status JournalParts(const std::map<std::int64_t, CommittedPart>& parts);

  Storage& storage_;
  const OutputLayout layout_;
  nlohmann::ordered_json job_, plan_;
  std::vector<nlohmann::ordered_json> more_plans_;
  JournalHistory history_;
  std::map<std::int64_t, CommittedPart> journaled_;
  // Parts that were about to be replaced when a driver died: by split, what was to come, and on an
  // object store may come still. What stands is read until then.
  std::map<std::int64_t, CommittedPart> replacing_;
  Work work_ = Work::kRun;
  std::uint32_t epoch_ = 0;
  std::int64_t writer_ = 1;           // of those of the epoch: the driver
  nlohmann::ordered_json open_;       // what this driver says of itself
  std::unique_ptr<Journal> journal_;  // a driver's
  std::unique_ptr<RowLog> rows_;
  Mutex entries_mutex_;
  std::vector<JournalEntry> entries_ MS_GUARDED_BY(entries_mutex_);  // a worker's
};

/// Whether a file or a folder stands there.
Result<bool> FileExists(Storage& storage, const std::string& path);

/// Moves an output and its state aside, to names that it returns, under which they are still one:
/// OUT.old-1 and OUT.old-1.millstream. A Conflict if something that is not the job's stands in its
/// place or in that of its failed rows; Invalid on an object store, which has no renames.
Result<std::vector<std::string>> MoveAside(Storage& storage, const OutputLayout& layout);
/// Ends a move that a crash left half done; does nothing if there is none.
Status FinishMoveAside(Storage& storage, const OutputLayout& layout);

}  // namespace millstream
