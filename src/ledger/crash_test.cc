// SPDX-License-Identifier: Apache-2.0
// Suite 1 of docs/reliability.md: drivers of a small job on a simulated disk that die at any call
// that changes it, and find what a kill or a power cut leaves. The real ledger over the real
// storage; the rows and the engine alone are made up.
//
// MS_TORTURE_SECONDS runs the random part for so long, MS_TORTURE_SEED with another seed; a failure
// prints the seed that MS_TORTURE_REPLAY replays.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "ledger/ledger.h"
#include "storage/simulated_disk.h"

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

// What outside the disk is known of a job: the oracle.
struct World {
  std::map<int, int> inferred;              // how often, by row
  std::set<int> logged;                     // rows whose answer would survive a kill
  std::set<int> durable;                    // and a power cut
  std::map<int, std::string> committed;     // parts that were reported durable
  std::map<std::string, std::string> seen;  // files of the output that a reader saw
  std::vector<std::string> wrong;
  bool complete = false;
};

// One driver's life. `choices` decides what is open to it: orders and group sizes.
class Driver {
 public:
  Driver(Storage& storage, World& world, std::mt19937_64& choices)
      : storage_(storage), world_(world), choices_(choices) {}

  Status Run() {
    const OutputLayout layout = OutputLayout::Of("/d/out", ".txt");
    MS_ASSIGN_OR_RETURN(const auto lock, storage_.Lock(Ledger::LockPath(layout), "{}"));
    MS_ASSIGN_OR_RETURN(auto ledger, Ledger::Load(storage_, layout));
    if (!ledger) {
      MS_ASSIGN_OR_RETURN(
          ledger, Ledger::Create(storage_, layout, {{"id", "j"}}, {{"splits", kSplits}})
      );
    }
    MS_RETURN_NOT_OK(ledger->Begin({{"pid", 1}}).status());
    MS_ASSIGN_OR_RETURN(const auto parts, ledger->Parts());
    for (const auto& [split, part] : parts) Committed(static_cast<int>(split), part.counts);
    MS_ASSIGN_OR_RETURN(const auto success, ledger->Success());
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

 private:
  void Wrong(std::string what) { world_.wrong.push_back(std::move(what)); }

  Result<FinishedPart> RunSplit(Ledger& ledger, int split) {
    MS_ASSIGN_OR_RETURN(const LoadedRows loaded, ledger.LoadRows(split));
    if (!loaded.damage.empty()) Wrong(loaded.damage.front());
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

  Result<std::string> Answer(Ledger& ledger, const LoadedRows& loaded, int split, int row) {
    const std::string key = std::to_string(row);
    const auto found = loaded.by_key.find(key);
    if (found != loaded.by_key.end()) {
      const std::string& answer = found->second.front().bytes;
      if (!answer.starts_with(key + "#")) Wrong("row " + key + " has the answer " + answer);
      return answer;
    }
    if (world_.logged.contains(row)) Wrong("row " + key + " was inferred again");
    // Another answer each time, so that a mixture shows.
    const std::string answer = fmt::format("{}#{}", key, ++world_.inferred[row]);
    MS_RETURN_NOT_OK(ledger.rows().Append(split, LogKind::kResult, key, {}, answer));
    world_.logged.insert(row);
    return answer;
  }

  Status SyncRows(Ledger& ledger) {
    MS_RETURN_NOT_OK(ledger.rows().Sync());
    world_.durable = world_.logged;
    return Status::OK();
  }

  Status Publish(Ledger& ledger, std::vector<FinishedPart>& parts) {
    MS_RETURN_NOT_OK(ledger.PublishParts(parts));
    for (const FinishedPart& part : parts) {
      const int split = static_cast<int>(part.split);
      world_.committed[split] = contents_[split];
      Committed(split, part.committed.counts);
    }
    parts.clear();
    return Status::OK();
  }

  // The row log of a committed split may go.
  void Committed(int split, const RowCounts& counts) {
    if (counts != CountsOf(split)) Wrong(fmt::format("split {} has other counts", split));
    for (int row = split * kRowsOfSplit; row < (split + 1) * kRowsOfSplit; ++row) {
      world_.logged.erase(row);
      world_.durable.erase(row);
    }
  }

  Storage& storage_;
  World& world_;
  std::mt19937_64& choices_;
  std::map<int, std::string> contents_;
};

// What stands in the output, as a reader sees it.
std::map<std::string, std::string> Output(const SimulatedDisk& disk) {
  std::map<std::string, std::string> output;
  for (auto& [path, bytes] : disk.Files()) {
    if (path.starts_with("/d/out/")) output[path] = bytes;
  }
  return output;
}

// What was reported durable is there, and nothing that a reader ever saw is another now. (A power
// cut may take what was seen before its folder was synced; what comes in its place is the same.)
void Look(const SimulatedDisk& disk, World& world) {
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

// Each row once, with its outcome, and nothing else.
void CheckWhole(const SimulatedDisk& disk, World& world) {
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

struct Death {
  std::int64_t at = 0;  // call, counted from the driver's start
  Crash crash = Crash::kKill;
};

struct Tally {
  std::int64_t jobs = 0, crashes = 0, errors = 0;
  std::int64_t calls = 0;  // of an undisturbed job
  std::vector<std::string> wrong;
};

// Runs a job whose drivers die as told, then undisturbed; `error_every` > 0: about one call of so
// many fails as well.
void RunJob(
    std::uint64_t seed, const std::vector<Death>& deaths, std::uint64_t error_every, Tally& tally
) {
  constexpr int kMaxLives = 200;
  std::mt19937_64 choices(seed);
  const auto disk = std::make_shared<SimulatedDisk>(seed);
  const auto faulty = std::make_shared<FaultyDisk>(disk);
  World world;
  std::size_t life = 0;
  for (int lives = 0; !world.complete && world.wrong.empty(); ++lives) {
    if (lives == kMaxLives) {
      world.wrong.emplace_back("the job does not end");
      break;
    }
    const bool dies = life < deaths.size();
    if (dies) disk->DieAt(deaths[life].at);
    // Errors cease, so that the job can end.
    if (error_every > 0 && lives < kMaxLives / 2) {
      constexpr int kErrors[] = {EIO, ENOSPC, EINTR, EMFILE};
      faulty->FailAt(
          1 + static_cast<std::int64_t>(choices() % error_every), kErrors[choices() % 4], false
      );
    } else {
      faulty->FailAt(0, 0, false);
    }
    Look(*disk, world);
    const std::unique_ptr<Storage> storage = MakeDiskStorage(faulty);
    const Status ran = Driver(*storage, world, choices).Run();
    if (disk->is_dead()) {
      ++tally.crashes;
      const Crash crash = deaths[life++].crash;
      disk->Restart(crash);
      if (crash != Crash::kKill) world.logged = world.durable;
    } else if (!ran.ok()) {
      // It could not go on: its process ends. What it had logged before an error is still there.
      if (!faulty->has_failed()) world.wrong.push_back("failed unasked: " + ran.ToString());
      ++tally.errors;
      disk->Restart(Crash::kKill);
    } else {
      disk->DieAt(0);
    }
  }
  if (world.wrong.empty()) {
    Look(*disk, world);
    disk->Restart(Crash::kPowerNothing);  // all must be durable by now
    Look(*disk, world);
    CheckWhole(*disk, world);
  }
  tally.calls = std::max(tally.calls, disk->num_changes());
  ++tally.jobs;
  for (const std::string& wrong : world.wrong) {
    std::string how = fmt::format("seed {}, errors 1/{}, deaths", seed, error_every);
    for (const Death& death : deaths) {
      how += fmt::format(" {}:{}", death.at, static_cast<int>(death.crash));
    }
    tally.wrong.push_back(how + ": " + wrong);
  }
}

std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

constexpr Crash kCrashes[] = {
    Crash::kKill, Crash::kPowerNothing, Crash::kPowerPrefix, Crash::kPowerScramble
};

void Report(const char* suite, const Tally& tally, std::uint64_t seed) {
  fmt::print(
      "TORTURE {{\"suite\": \"{}\", \"seed\": {}, \"jobs\": {}, \"crashes\": {}, \"errors\": {}, "
      "\"wrong\": {}}}\n",
      suite,
      seed,
      tally.jobs,
      tally.crashes,
      tally.errors,
      tally.wrong.size()
  );
  for (std::size_t i = 0; i < tally.wrong.size() && i < 5; ++i) {
    ADD_FAILURE() << tally.wrong[i];
  }
}

TEST(CrashTest, ADeathAtAnyCallLosesAndDoublesNothing) {
  Tally tally;
  RunJob(1, {}, 0, tally);
  const std::int64_t calls = tally.calls;
  std::uint64_t seed = 1;
  for (std::int64_t at = 1; at <= calls; ++at) {
    for (const Crash crash : kCrashes) {
      const int times = crash == Crash::kKill || crash == Crash::kPowerNothing ? 1 : 10;
      for (int i = 0; i < times; ++i) RunJob(seed++, {{at, crash}}, 0, tally);
    }
  }
  for (std::int64_t at = 1; at <= calls; ++at) {
    for (std::int64_t second = 1; second <= calls; second += 3) {
      const Crash crash = kCrashes[seed % 4];
      RunJob(seed++, {{at, crash}, {second, kCrashes[seed / 4 % 4]}}, 0, tally);
    }
  }
  Report("crash, exhaustive", tally, 1);
}

// Runs random jobs until `crashes` deaths, or for MS_TORTURE_SECONDS.
void RunRandomJobs(const char* suite, std::int64_t crashes, std::uint64_t error_every) {
  const std::uint64_t seconds = FromEnvironment("MS_TORTURE_SECONDS", 0);
  const std::uint64_t first = FromEnvironment("MS_TORTURE_SEED", 1) << 32;
  const auto start = std::chrono::steady_clock::now();
  Tally tally;
  RunJob(1, {}, 0, tally);
  const auto calls = static_cast<std::uint64_t>(tally.calls);
  const std::uint64_t replay = FromEnvironment("MS_TORTURE_REPLAY", 0);
  for (std::uint64_t seed = replay > 0 ? replay : first;; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<Death> deaths(random() % 9);
    for (Death& death : deaths) {
      death = {1 + static_cast<std::int64_t>(random() % calls), kCrashes[random() % 4]};
    }
    RunJob(seed, deaths, error_every, tally);
    if (tally.wrong.size() > 5 || replay > 0) break;
    const bool is_over =
        seconds > 0 ? std::chrono::steady_clock::now() - start > std::chrono::seconds(seconds)
                    : tally.crashes >= crashes;
    if (is_over) break;
  }
  Report(suite, tally, first);
}

TEST(CrashTest, RandomDeathsLoseAndDoubleNothing) {
  RunRandomJobs("crash, random", 20000, 0);
}

TEST(CrashTest, RandomDeathsAmongErrorsLoseAndDoubleNothing) {
  RunRandomJobs("crash, random with errors", 5000, 300);
}

}  // namespace
}  // namespace millstream
