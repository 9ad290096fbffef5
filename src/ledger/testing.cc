// SPDX-License-Identifier: Apache-2.0
#include "ledger/testing.h"

#include <cstdlib>
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

Result<FinishedPart> MadeUpDriver::RunSplit(Ledger& ledger, int split) {
  MS_ASSIGN_OR_RETURN(const LoadedRows loaded, ledger.LoadRows(split));
  if (!loaded.damage.empty() && !world_.has_damage) Wrong(loaded.damage.front());
  FinishedPart part;
  part.committed.skipped_rows.resize(kRowsOfSplit / 8);
  std::string bytes;
  int unsynced = 0;
  for (int i = 0; i < kRowsOfSplit; ++i) {
    const int row = split * kRowsOfSplit + i;
    if (OutcomeOf(row) == Outcome::kSkipped) {
      part.committed.skipped_rows[0] = static_cast<char>(part.committed.skipped_rows[0] | 1 << i);
      continue;
    }
    MS_ASSIGN_OR_RETURN(const std::string answer, Answer(ledger, loaded, split, row));
    bytes +=
        fmt::format("{} {} {}\n", row, OutcomeOf(row) == Outcome::kOk ? "ok" : "error", answer);
    if (++unsynced % kGroup == 0) MS_RETURN_NOT_OK(SyncRows(ledger));
  }
  part.split = split;
  part.path = ledger.TemporaryPath(split);
  part.committed.file = {HashOf(bytes), bytes.size()};
  part.committed.counts = CountsOf(split);
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
  MS_RETURN_NOT_OK(ledger.PublishParts(parts));
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

void MadeUpDriver::Committed(int split, const RowCounts& counts) {
  if (counts != CountsOf(split)) Wrong(fmt::format("split {} has other counts", split));
  for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
    world_.logged.erase(row);
    world_.durable.erase(row);
  }
}

void Look(const SimulatedDisk& disk, JobWorld& world) {
  const auto output = Output(disk);
  for (const auto& [path, bytes] : output) {
    if (world.seen.emplace(path, bytes).first->second != bytes) {
      world.wrong.push_back(path + " changed after it was seen");
    }
  }
  for (const auto& [split, bytes] : world.committed) {
    const auto found = output.find(fmt::format("/d/out/part-{:06d}.txt", split));
    if (found == output.end() || found->second != bytes) {
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
      const char* outcome = OutcomeOf(row) == Outcome::kOk ? "ok" : "error";
      if (OutcomeOf(row) == Outcome::kSkipped ||
          !line.starts_with(fmt::format("{} {} {}#", row, outcome, row))) {
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
  for (const auto& [path, bytes] : disk.Files()) {
    if (path.starts_with("/d/out.millstream/tmp/") || path.starts_with("/d/out.millstream/rows/")) {
      world.wrong.push_back(path + " was left behind");
    }
  }
}

}  // namespace millstream
