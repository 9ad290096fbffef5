// SPDX-License-Identifier: Apache-2.0
#include "ledger/testing.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <utility>

#include "fmt/format.h"

namespace millstream {
namespace {

constexpr int kSplits = 4;
constexpr int kRowsOfSplit = 8;
constexpr int kGroup = 3;  // rows between two syncs of the row log

enum class Outcome { kOk, kError, kSkipped };
Outcome OutcomeOf(int row) {
  return row % 5 == 3 ? Outcome::kSkipped : row % 7 == 2 ? Outcome::kError : Outcome::kOk;
}

// Added to a failed row's number with each retry, by which the answers of one are told from those
// of another.
constexpr int kRetried = 1000;

// How often a failed row is retried until it is ok.
int RetriesOf(int row) {
  return row % 2 == 0 ? 2 : 1;
}

RowCounts CountsOf(int split) {
  RowCounts counts;
  for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
    const Outcome outcome = OutcomeOf(row);
    ++(outcome == Outcome::kOk      ? counts.ok
       : outcome == Outcome::kError ? counts.error
                                    : counts.skipped);
  }
  return counts;
}

// After so many retries.
RowCounts RetriedCountsOf(int split, int retries) {
  RowCounts counts = CountsOf(split);
  for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
    if (OutcomeOf(row) != Outcome::kError || RetriesOf(row) > retries) continue;
    ++counts.ok;
    --counts.error;
  }
  return counts;
}

std::string SkippedRowsOf(int split) {
  std::string bits(kRowsOfSplit / 8, '\0');
  for (int i = 0; i < kRowsOfSplit; ++i) {
    if (OutcomeOf(split * kRowsOfSplit + i) != Outcome::kSkipped) continue;
    bits[0] = static_cast<char>(bits[0] | 1 << i);
  }
  return bits;
}

// How often a part was retried, by the answers of its rows.
int RetriesOfPart(const std::string& bytes) {
  int retries = 0;
  std::istringstream lines(bytes);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t answer = line.rfind(' ');
    if (answer == std::string::npos) continue;
    retries = std::max(retries, std::atoi(line.c_str() + answer + 1) / kRetried);
  }
  return retries;
}

// What stands in the output, as a reader sees it.
std::map<std::string, std::string> Output(const SimulatedDisk& disk) {
  std::map<std::string, std::string> output;
  for (auto& [path, bytes] : disk.Files()) {
    if (path.starts_with("/d/out/")) output[path] = bytes;
  }
  return output;
}

}  // namespace

Status MadeUpDriver::Run() {
  MS_ASSIGN_OR_RETURN(const auto lock, storage_.Lock(Ledger::LockPath(layout_), "{}"));
  return RunUnlocked();
}

Status MadeUpDriver::RunUnlocked() {
  MS_ASSIGN_OR_RETURN(auto ledger, Ledger::Load(storage_, layout_));
  if (!ledger) {
    MS_ASSIGN_OR_RETURN(
        ledger, Ledger::Create(storage_, layout_, {{"id", "j"}}, {{"splits", kSplits}})
    );
  }
  MS_ASSIGN_OR_RETURN(const auto success, ledger->Success());
  MS_ASSIGN_OR_RETURN(const auto parts, ledger->Begin({{"pid", 1}}));
  for (const auto& [split, part] : parts) Committed(static_cast<int>(split), part.counts);
  if (success && parts.size() < kSplits) Wrong("success.json stands before all parts");
  std::vector<FinishedPart> waiting;
  for (int split = 0; split < kSplits; ++split) {
    if (parts.contains(split)) continue;
    MS_ASSIGN_OR_RETURN(FinishedPart part, RunSplit(*ledger, split));
    waiting.push_back(std::move(part));
    if (choices_() % 2 == 0) MS_RETURN_NOT_OK(Publish(*ledger, waiting));
  }
  MS_RETURN_NOT_OK(Publish(*ledger, waiting));
  MS_RETURN_NOT_OK(ledger->WriteSuccess({{"parts", kSplits}}));
  world_.complete = true;
  return Status::OK();
}

Status MadeUpDriver::Retry() {
  MS_ASSIGN_OR_RETURN(const auto lock, storage_.Lock(Ledger::LockPath(layout_), "{}"));
  return RetryUnlocked();
}

Status MadeUpDriver::RetryUnlocked() {
  MS_ASSIGN_OR_RETURN(const auto ledger, Ledger::Load(storage_, layout_));
  const auto all_ok = RetryRows(*ledger);
  if (!all_ok.ok()) return UnlessTakenOver(*ledger, all_ok.status());
  if (choices_() % 2 == 0) MS_RETURN_NOT_OK(Prune());
  world_.retried = *all_ok;
  return Status::OK();
}

Status MadeUpDriver::UnlessTakenOver(const Ledger& ledger, const Status& failure) {
  const auto successor = ledger.Successor();
  return successor.ok() && *successor ? Status::Cancelled("taken over") : failure;
}

Status MadeUpDriver::Prune() {
  world_.pruned = true;
  MS_ASSIGN_OR_RETURN(const auto ledger, Ledger::Load(storage_, layout_));
  const Status pruned = ledger->Prune({{"pid", 1}});
  if (!pruned.ok()) return UnlessTakenOver(*ledger, pruned);
  MS_ASSIGN_OR_RETURN(const auto kept, storage_.List(layout_.state + "/superseded"));
  if (!kept.empty() && !world_.had_two_drivers) Wrong("pruned, and replaced parts are there");
  return Status::OK();
}

Result<bool> MadeUpDriver::RetryRows(Ledger& ledger) {
  MS_ASSIGN_OR_RETURN(const auto parts, ledger.Parts());
  if (parts.size() < kSplits) Wrong("a retry finds not all parts");
  MS_RETURN_NOT_OK(ledger.Begin({{"pid", 1}}, Work::kRetry).status());
  std::vector<FinishedPart> waiting;
  bool all_ok = true;
  for (int split = 0; split < kSplits; ++split) {
    MS_ASSIGN_OR_RETURN(const std::string old, storage_.Read(layout_.PartPath(split), 1 << 20));
    if (old.find(" error ") == std::string::npos) continue;
    MS_ASSIGN_OR_RETURN(FinishedPart part, RetrySplit(ledger, split, old));
    all_ok = all_ok && part.committed.counts.error == 0;
    waiting.push_back(std::move(part));
    if (choices_() % 2 == 0) MS_RETURN_NOT_OK(Replace(ledger, waiting));
  }
  MS_RETURN_NOT_OK(Replace(ledger, waiting));
  MS_RETURN_NOT_OK(ledger.WriteSuccess({{"parts", kSplits}}));
  MS_RETURN_NOT_OK(ledger.EndRetry());
  return all_ok;
}

Result<FinishedPart> MadeUpDriver::RunSplit(Ledger& ledger, int split) {
  MS_ASSIGN_OR_RETURN(const LoadedRows loaded, ledger.LoadRows(split));
  if (!loaded.damage.empty() && !world_.has_damage) Wrong(loaded.damage.front());
  std::string bytes;
  int unsynced = 0;
  for (int i = 0; i < kRowsOfSplit; ++i) {
    const int row = split * kRowsOfSplit + i;
    if (OutcomeOf(row) == Outcome::kSkipped) continue;
    MS_ASSIGN_OR_RETURN(const std::string answer, Answer(ledger, loaded, split, row));
    bytes +=
        fmt::format("{} {} {}\n", row, OutcomeOf(row) == Outcome::kOk ? "ok" : "error", answer);
    if (++unsynced % kGroup == 0) MS_RETURN_NOT_OK(SyncRows(ledger));
  }
  return WritePart(ledger, split, std::move(bytes), CountsOf(split));
}

Result<FinishedPart> MadeUpDriver::RetrySplit(Ledger& ledger, int split, const std::string& old) {
  MS_ASSIGN_OR_RETURN(const LoadedRows loaded, ledger.LoadRows(split));
  if (!loaded.damage.empty()) Wrong(loaded.damage.front());
  std::string bytes;
  const int retries = RetriesOfPart(old) + 1;
  std::istringstream lines(old);
  for (std::string line; std::getline(lines, line);) {
    const int row = std::atoi(line.c_str());
    if (line.find(" error ") != std::string::npos) {
      MS_ASSIGN_OR_RETURN(
          const std::string answer, Answer(ledger, loaded, split, row + retries * kRetried)
      );
      line = fmt::format("{} {} {}", row, RetriesOf(row) > retries ? "error" : "ok", answer);
      if (choices_() % 2 == 0) MS_RETURN_NOT_OK(SyncRows(ledger));
    }
    bytes += line + "\n";
  }
  return WritePart(ledger, split, std::move(bytes), RetriedCountsOf(split, retries));
}

Result<FinishedPart> MadeUpDriver::WritePart(
    Ledger& ledger, int split, std::string bytes, const RowCounts& counts
) {
  FinishedPart part;
  part.split = split;
  part.path = ledger.TemporaryPath(std::to_string(split));
  part.committed.file = {HashOf(bytes), bytes.size()};
  part.committed.counts = counts;
  part.committed.skipped_rows = SkippedRowsOf(split);
  MS_ASSIGN_OR_RETURN(const auto stream, storage_.Create(part.path));
  MS_RETURN_NOT_OK(stream->Write(std::string_view(bytes).substr(0, bytes.size() / 2)));
  MS_RETURN_NOT_OK(stream->Write(std::string_view(bytes).substr(bytes.size() / 2)));
  MS_RETURN_NOT_OK(stream->Close());
  contents_[split] = std::move(bytes);
  return part;
}

Result<std::string> MadeUpDriver::Answer(
    Ledger& ledger, const LoadedRows& loaded, int split, int row
) {
  const std::string key = std::to_string(row);
  const auto found = loaded.by_key.find(key);
  if (found != loaded.by_key.end()) {
    const std::string& answer = found->second.front().bytes;
    if (!answer.starts_with(key + "#")) Wrong("row " + key + " has the answer " + answer);
    return answer;
  }
  if (world_.logged.contains(row) && !world_.had_two_drivers && !world_.has_damage) {
    Wrong("row " + key + " was inferred again");
  }
  // Another answer each time, so that a mixture shows.
  const std::string answer = fmt::format("{}#{}", key, ++world_.inferred[row]);
  MS_RETURN_NOT_OK(ledger.rows().Append(split, LogKind::kResult, key, {}, answer));
  world_.logged.insert(row);
  return answer;
}

Status MadeUpDriver::SyncRows(Ledger& ledger) {
  MS_RETURN_NOT_OK(ledger.rows().Sync());
  world_.durable = world_.logged;
  return Status::OK();
}

Status MadeUpDriver::Publish(Ledger& ledger, std::vector<FinishedPart>& parts) {
  MS_RETURN_NOT_OK(ledger.PublishParts(parts).status());
  for (const FinishedPart& part : parts) {
    const int split = static_cast<int>(part.split);
    std::string bytes = contents_[split];
    if (world_.had_two_drivers) {  // the other's may stand
      MS_ASSIGN_OR_RETURN(bytes, storage_.Read(layout_.PartPath(split), 1 << 20));
    }
    if (world_.committed.emplace(split, bytes).first->second != bytes) {
      Wrong(fmt::format("split {} was committed with other rows before", split));
    }
    Committed(split, part.committed.counts);
  }
  parts.clear();
  return Status::OK();
}

Status MadeUpDriver::Replace(Ledger& ledger, std::vector<FinishedPart>& parts) {
  for (const FinishedPart& part : parts) {
    const int split = static_cast<int>(part.split);
    world_.offered[split][RetriesOfPart(contents_[split])].insert(contents_[split]);
  }
  MS_RETURN_NOT_OK(ledger.ReplaceParts(parts));
  for (const FinishedPart& part : parts) {
    const int split = static_cast<int>(part.split);
    const int retries = RetriesOfPart(contents_[split]);
    if (!world_.replaced.emplace(std::pair(split, retries), contents_[split]).second) {
      Wrong(fmt::format("split {} was replaced before", split));
    }
    for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
      world_.logged.erase(row + retries * kRetried);
      world_.durable.erase(row + retries * kRetried);
    }
  }
  parts.clear();
  return Status::OK();
}

void MadeUpDriver::Committed(int split, const RowCounts& counts) {
  bool is_known = counts == CountsOf(split);
  for (const auto& [retries, parts] : world_.offered[split]) {
    is_known = is_known || counts == RetriedCountsOf(split, retries);
  }
  if (!is_known) Wrong(fmt::format("split {} has other counts", split));
  for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
    world_.logged.erase(row);
    world_.durable.erase(row);
  }
}

namespace {

// A part that stands where another did, once a retry was about to replace that one.
void LookAtReplacement(
    const std::map<std::string, std::string>& files,
    int split,
    const std::string& first,
    const std::string& bytes,
    JobWorld& world
) {
  const int retries = RetriesOfPart(bytes);
  for (const auto& [which, replacement] : world.replaced) {
    const bool is_older = which.first == split && which.second >= retries && replacement != bytes;
    if (is_older) world.wrong.push_back(fmt::format("split {} is not what replaced it", split));
  }
  if (bytes == first) return;
  if (!world.offered[split][retries].contains(bytes)) {
    world.wrong.push_back(fmt::format("split {} is no version of its part", split));
  }
  if (world.pruned) return;
  std::vector<std::string> kept{first};
  for (const auto& [which, replacement] : world.replaced) {
    if (which.first == split && which.second < retries) kept.push_back(replacement);
  }
  for (const std::string& old : kept) {
    const std::string path =
        fmt::format("/d/out.millstream/superseded/part-{:06d}-{}.txt", split, HashOf(old));
    if (!files.contains(path) || files.at(path) != old) {
      world.wrong.push_back(fmt::format("an old part of split {} is not kept", split));
    }
  }
}

}  // namespace

void Look(const SimulatedDisk& disk, JobWorld& world) {
  const auto files = disk.Files();
  const auto output = Output(disk);
  for (const auto& [path, bytes] : output) {
    // One for each retry.
    const std::string version = fmt::format("{} after {}", path, RetriesOfPart(bytes));
    if (world.seen.emplace(version, bytes).first->second != bytes) {
      world.wrong.push_back(path + " changed after it was seen");
    }
  }
  for (const auto& [split, bytes] : world.committed) {
    const auto found = output.find(fmt::format("/d/out/part-{:06d}.txt", split));
    if (found != output.end() && world.offered.contains(split)) {
      LookAtReplacement(files, split, bytes, found->second, world);
    } else if (found == output.end() || found->second != bytes) {
      world.wrong.push_back(fmt::format("committed part {} changed or is gone", split));
    }
  }
}

void CheckWhole(const SimulatedDisk& disk, JobWorld& world) {
  std::map<int, int> times;
  for (const auto& [path, bytes] : Output(disk)) {
    std::size_t begin = 0;
    while (begin < bytes.size()) {
      const std::size_t end = bytes.find('\n', begin);
      if (end == std::string::npos) {
        world.wrong.push_back(path + " is torn");
        break;
      }
      const int row = std::atoi(bytes.c_str() + begin);
      const std::string line = bytes.substr(begin, end - begin);
      const bool was_retried = OutcomeOf(row) == Outcome::kError && world.retried;
      const char* outcome = OutcomeOf(row) == Outcome::kOk || was_retried ? "ok" : "error";
      const int answered = row + (was_retried ? RetriesOf(row) * kRetried : 0);
      if (OutcomeOf(row) == Outcome::kSkipped ||
          !line.starts_with(fmt::format("{} {} {}#", row, outcome, answered))) {
        world.wrong.push_back("a line is " + line);
      }
      ++times[row];
      begin = end + 1;
    }
  }
  for (int row = 0; row < kSplits * kRowsOfSplit; ++row) {
    const int expected = OutcomeOf(row) == Outcome::kSkipped ? 0 : 1;
    if (times[row] != expected) {
      world.wrong.push_back(fmt::format("row {} is there {} times", row, times[row]));
    }
  }
}

void CheckTidy(const SimulatedDisk& disk, JobWorld& world) {
  std::vector<std::string> folders{"tmp/", "retry/"};
  // What a power cut brought back of a run is for the next run to remove.
  if (!world.retried) folders.emplace_back("rows/");
  for (const auto& [path, bytes] : disk.Files()) {
    for (const std::string& folder : folders) {
      if (path.starts_with("/d/out.millstream/" + folder)) {
        world.wrong.push_back(path + " was left behind");
      }
    }
  }
}

}  // namespace millstream
