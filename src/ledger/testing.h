// SPDX-License-Identifier: Apache-2.0
// For tests: a driver of a small job over the real ledger, whose rows and engine alone are made up,
// and an oracle that holds what it leaves against what must be.

#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "ledger/ledger.h"
#include "storage/simulated_disk.h"

namespace millstream {

/// What outside the disk is known of a job: the oracle.
struct JobWorld {
  std::map<int, int> inferred;              // how often, by row
  std::set<int> logged;                     // rows whose answer would survive a kill
  std::set<int> durable;                    // and a power cut
  std::map<int, std::string> committed;     // parts that were reported durable
  std::map<std::string, std::string> seen;  // files of the output that a reader saw
  std::vector<std::string> wrong;
  bool complete = false;
  /// The parts of retries: those that were handed over to take a part's place, by split and number
  /// of the retry, and the one that was reported durable there.
  std::map<int, std::map<int, std::set<std::string>>> offered;
  std::map<std::pair<int, int>, std::string> replaced;
  bool retried = false;  // until all rows were ok
  bool pruned = false;   // what was replaced may be gone
  /// Two drivers were at work at once: a row may be inferred by both, and the part of one may take
  /// the other's place in a power cut, as long as nobody called it durable.
  bool had_two_drivers = false;
  /// Files were damaged: answers may be lost, if it is said.
  bool has_damage = false;
};

/// One driver's life. `choices` decides what is open to it: orders and group sizes.
class MadeUpDriver {
 public:
  /// All must outlive it.
  MadeUpDriver(Storage& storage, JobWorld& world, std::mt19937_64& choices)
      : storage_(storage), world_(world), choices_(choices) {}

  Status Run();
  /// As if the lock did not work, and another driver still held it.
  Status RunUnlocked();
  /// Runs the failed rows of a complete job again; some fail once more.
  Status Retry();
  Status RetryUnlocked();

  static OutputLayout Layout() { return OutputLayout::Of("/d/out", ".txt"); }

 private:
  void Wrong(std::string what) { world_.wrong.push_back(std::move(what)); }
  // Whether all rows are ok now.
  Result<bool> RetryRows(Ledger& ledger);
  Status Prune();
  static Status UnlessTakenOver(const Ledger& ledger, const Status& failure);
  Result<FinishedPart> RunSplit(Ledger& ledger, int split);
  // The split's part with the failed rows of `old` answered.
  Result<FinishedPart> RetrySplit(Ledger& ledger, int split, const std::string& old);
  Result<FinishedPart> WritePart(
      Ledger& ledger, int split, std::string bytes, const RowCounts& counts
  );
  Result<std::string> Answer(Ledger& ledger, const LoadedRows& loaded, int split, int row);
  Status SyncRows(Ledger& ledger);
  Status Publish(Ledger& ledger, std::vector<FinishedPart>& parts);
  Status Replace(Ledger& ledger, std::vector<FinishedPart>& parts);
  // The row log of a committed split may go.
  void Committed(int split, const RowCounts& counts);

  const OutputLayout layout_ = Layout();
  Storage& storage_;
  JobWorld& world_;
  std::mt19937_64& choices_;
  std::map<int, std::string> contents_;
};

/// What was reported durable is there, and nothing that a reader ever saw is another now. (A power
/// cut may take what was seen before its folder was synced; what comes in its place is the same.)
/// A part that a retry was about to replace is the old one or the new one, and the old one is kept.
void Look(const SimulatedDisk& disk, JobWorld& world);
/// Each row once, with its outcome, and nothing else.
void CheckWhole(const SimulatedDisk& disk, JobWorld& world);
/// Nothing that only a driver at work needs is left.
void CheckTidy(const SimulatedDisk& disk, JobWorld& world);

}  // namespace millstream
