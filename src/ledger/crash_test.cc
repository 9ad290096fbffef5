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
#include <random>
#include <string>
#include <vector>

#include "base/torture.h"
#include "fmt/format.h"
#include "ledger/testing.h"
#include "storage/simulated_disk.h"

namespace millstream {
namespace {

constexpr std::uint64_t kShards = 2;

struct Death {
  std::int64_t at = 0;  // call, counted from the driver's start; 0: it lives to its end
  Crash crash = Crash::kKill;
  // Before its call `takeover_at` another driver takes it for dead, and works until its own call
  // `takeover_until` (0: to its end); then this one goes on. 0: none does.
  std::int64_t takeover_at = 0, takeover_until = 0;
};

struct Tally {
  std::int64_t jobs = 0, crashes = 0, takeovers = 0, errors = 0;
  std::int64_t calls = 0;       // of the longest job that change the disk; or of its retry
  std::int64_t disk_calls = 0;  // all of them
  std::vector<std::string> wrong;
};

// What dies as told.
enum class Victims { kRuns, kRetries };

// The other driver of a takeover.
void TakeOver(
    const std::shared_ptr<SimulatedDisk>& disk,
    std::int64_t until,
    Victims victims,
    JobWorld& world,
    std::mt19937_64& choices
) {
  world.had_two_drivers = true;
  const auto faulty = std::make_shared<FaultyDisk>(disk);
  if (until > 0) faulty->FailAt(until, EIO, /*for_good=*/true);
  const std::unique_ptr<Storage> storage = MakeDiskStorage(faulty);
  MadeUpDriver driver(*storage, world, choices);
  const bool retries = victims == Victims::kRetries && choices() % 4 > 0;
  const Status ran = retries ? driver.RetryUnlocked() : driver.RunUnlocked();
  if (!ran.ok() && !faulty->has_failed() && !disk->is_dead()) {
    world.wrong.push_back("the second driver failed unasked: " + ran.ToString());
  }
}

// A job whose drivers come one after the other.
class Lives {
 public:
  // `error_every` > 0: about one call of so many fails as well.
  Lives(
      std::uint64_t seed,
      const std::vector<Death>& deaths,
      std::uint64_t error_every,
      Victims victims
  )
      : deaths_(deaths),
        error_every_(error_every),
        victims_(victims),
        choices_(seed),
        disk_(std::make_shared<SimulatedDisk>(seed)),
        faulty_(std::make_shared<FaultyDisk>(disk_)) {}

  // Lets drivers die as told, then runs one undisturbed, and looks at what stands.
  void Run(Tally& tally) {
    if (victims_ == Victims::kRetries) {
      const std::unique_ptr<Storage> storage = MakeDiskStorage(disk_);
      const Status ran = MadeUpDriver(*storage, world_, choices_).Run();
      if (!ran.ok()) world_.wrong.push_back("the first run: " + ran.ToString());
    }
    const std::int64_t changes_before = disk_->num_changes();
    constexpr int kMaxLives = 200;
    for (int lives = 0; !IsOver() && world_.wrong.empty(); ++lives) {
      if (lives == kMaxLives) {
        world_.wrong.emplace_back("the job does not end");
        break;
      }
      // Errors cease, so that the job can end.
      RunOne(error_every_ > 0 && lives < kMaxLives / 2, tally);
    }
    if (world_.wrong.empty()) {
      Look(*disk_, world_);
      if (!world_.had_two_drivers) CheckTidy(*disk_, world_);
      disk_->Restart(Crash::kPowerNothing);  // all must be durable by now
      Look(*disk_, world_);
      CheckWhole(*disk_, world_);
    }
    tally.calls = std::max(tally.calls, disk_->num_changes() - changes_before);
    tally.disk_calls = std::max(tally.disk_calls, faulty_->num_calls());
    ++tally.jobs;
  }
  const std::vector<std::string>& wrong() const { return world_.wrong; }

 private:
  bool& IsOver() { return victims_ == Victims::kRuns ? world_.complete : world_.retried; }

  Status Work(Storage& storage) {
    // After a retry that died, the job may be run before it is retried again.
    if (victims_ == Victims::kRuns || choices_() % 3 == 0) {
      const Status ran = MadeUpDriver(storage, world_, choices_).Run();
      if (victims_ == Victims::kRuns || !ran.ok()) return ran;
    }
    return MadeUpDriver(storage, world_, choices_).Retry();
  }

  void RunOne(bool has_errors, Tally& tally) {
    const Death death = death_ < deaths_.size() ? deaths_[death_] : Death{};
    disk_->DieAt(death.at);
    faulty_->FailAt(0, 0, false);
    if (has_errors) {
      constexpr int kErrors[] = {EIO, ENOSPC, EINTR, EMFILE};
      const auto at = 1 + static_cast<std::int64_t>(choices_() % error_every_);
      faulty_->FailAt(at, kErrors[choices_() % 4], false);
    }
    bool was_taken_over = false;
    faulty_->CallAt(death.takeover_at, [&] {
      was_taken_over = true;
      TakeOver(disk_, death.takeover_until, victims_, world_, choices_);
    });
    Look(*disk_, world_);
    const std::unique_ptr<Storage> storage = MakeDiskStorage(faulty_);
    const Status ran = Work(*storage);
    if (was_taken_over) {
      ++tally.takeovers;
      IsOver() = false;  // that is for a driver alone to say
    }
    if (disk_->is_dead()) {
      IsOver() = false;  // it died before it could say so
      ++tally.crashes;
      ++death_;
      Restart(death.crash);
      return;
    }
    if (was_taken_over) {
      // It may find its unpublished files gone, but it must never take its own job for damaged.
      if (IsConflict(ran)) world_.wrong.push_back("the first driver: " + ran.ToString());
      ++death_;
      Restart(death.crash);
    } else if (!ran.ok()) {
      // It could not go on: its process ends. What it had logged before an error is still there.
      if (!faulty_->has_failed()) world_.wrong.push_back("failed unasked: " + ran.ToString());
      ++tally.errors;
      Restart(Crash::kKill);
    }
  }

  void Restart(Crash crash) {
    disk_->Restart(crash);
    if (crash == Crash::kKill) return;
    world_.logged = world_.durable;
    if (world_.had_two_drivers) world_.seen.clear();
  }

  const std::vector<Death>& deaths_;
  const std::uint64_t error_every_;
  const Victims victims_;
  std::mt19937_64 choices_;
  const std::shared_ptr<SimulatedDisk> disk_;
  const std::shared_ptr<FaultyDisk> faulty_;
  JobWorld world_;
  std::size_t death_ = 0;
};

void RunJob(
    std::uint64_t seed,
    const std::vector<Death>& deaths,
    std::uint64_t error_every,
    Tally& tally,
    Victims victims = Victims::kRuns
) {
  Lives lives(seed, deaths, error_every, victims);
  lives.Run(tally);
  for (const std::string& wrong : lives.wrong()) {
    std::string how = fmt::format("seed {}, errors 1/{}, deaths", seed, error_every);
    for (const Death& death : deaths) {
      how += fmt::format(
          " {}:{}:{}:{}",
          death.at,
          static_cast<int>(death.crash),
          death.takeover_at,
          death.takeover_until
      );
    }
    tally.wrong.push_back(how + ": " + wrong);
  }
}

constexpr Crash kCrashes[] = {
    Crash::kKill, Crash::kPowerNothing, Crash::kPowerPrefix, Crash::kPowerScramble
};
constexpr std::size_t kEnoughWrong = 5;

void Report(const char* suite, const Tally& tally, std::uint64_t seed) {
  fmt::print(
      "TORTURE {{\"suite\": \"{}\", \"seed\": {}, \"jobs\": {}, \"crashes\": {}, "
      "\"takeovers\": {}, \"errors\": {}, \"wrong\": {}}}\n",
      suite,
      seed,
      tally.jobs,
      tally.crashes,
      tally.takeovers,
      tally.errors,
      tally.wrong.size()
  );
  for (std::size_t i = 0; i < tally.wrong.size() && i < kEnoughWrong; ++i) {
    ADD_FAILURE() << tally.wrong[i];
  }
}

// Deaths at every call, and at every call and in the next life at one of so many.
void RunExhaustively(const char* suite, Victims victims, std::int64_t second_step) {
  Tally tally;
  RunJob(1, {}, 0, tally, victims);
  const std::int64_t calls = tally.calls;
  std::uint64_t seed = 1;
  constexpr std::int64_t kStep = kIsSlow ? 7 : 1;
  for (std::int64_t at = 1; at <= calls; at += kStep) {
    for (const Crash crash : kCrashes) {
      const int times = crash == Crash::kKill || crash == Crash::kPowerNothing ? 1 : 10;
      for (int i = 0; i < times; ++i) RunJob(seed++, {{at, crash}}, 0, tally, victims);
    }
    if (tally.wrong.size() >= kEnoughWrong) break;
  }
  // Killed, and then the power goes as well: what a reader saw in between was not durable yet.
  for (std::int64_t at = 1; at <= calls; at += kStep) {
    for (int i = 0; i < 6; ++i) {
      const auto soon = 1 + static_cast<std::int64_t>(seed % 8);
      RunJob(seed++, {{at, Crash::kKill}, {soon, kCrashes[1 + i % 3]}}, 0, tally, victims);
    }
    if (tally.wrong.size() >= kEnoughWrong) break;
  }
  for (std::int64_t at = 1; at <= calls; at += kStep) {
    for (std::int64_t second = 1; second <= calls; second += second_step * kStep) {
      const Crash crash = kCrashes[seed % 4];
      RunJob(seed++, {{at, crash}, {second, kCrashes[seed / 4 % 4]}}, 0, tally, victims);
    }
    if (tally.wrong.size() >= kEnoughWrong) break;
  }
  Report(suite, tally, 1);
}

TEST(CrashTest, ADeathAtAnyCallLosesAndDoublesNothing) {
  RunExhaustively("crash, exhaustive", Victims::kRuns, 3);
}

// Retries of a complete job die: each part is the old one or the new one at every moment.
TEST(CrashTest, ADeathAtAnyCallOfARetryLosesAndDoublesNothing) {
  RunExhaustively("crash, retry", Victims::kRetries, 11);
}

// The lock does not work (a network file system, a file that was deleted): another driver takes the
// job over at any call of the first, which was only slow and goes on.
void TakeOverAtEachCall(const char* suite, Victims victims, std::int64_t step) {
  Tally tally;
  RunJob(1, {}, 0, tally, victims);
  const std::int64_t calls = tally.disk_calls;
  std::uint64_t seed = 1;
  for (std::int64_t at = 1; at <= calls && tally.wrong.size() < kEnoughWrong;
       at += kIsSlow ? 7 : 1) {
    for (std::int64_t until = at % step; until <= calls; until += step) {
      const Crash crash = kCrashes[seed % 4];
      RunJob(seed++, {{0, crash, at, until}}, 0, tally, victims);
      if (seed % 4 == 0)
        RunJob(seed++, {{at, crash}, {0, kCrashes[seed / 4 % 4], at, until}}, 0, tally, victims);
    }
  }
  Report(suite, tally, 1);
}

TEST(CrashTest, ADriverTakenForDeadThatGoesOnHarmsNothing) {
  TakeOverAtEachCall("crash, two drivers", Victims::kRuns, kIsSlow ? 97 : 7);
}

TEST(CrashTest, ARetryTakenForDeadThatGoesOnHarmsNothing) {
  TakeOverAtEachCall("crash, two retries", Victims::kRetries, kIsSlow ? 499 : 47);
}

// Runs random jobs until `crashes` deaths, or for MS_TORTURE_SECONDS.
void RunRandomJobs(
    const char* suite,
    std::uint64_t shard,
    std::int64_t crashes,
    std::uint64_t error_every,
    Victims victims = Victims::kRuns
) {
  const std::uint64_t first = (TortureSeed() * kShards + shard) << 32;
  const TortureClock clock(crashes);
  Tally tally;
  RunJob(1, {}, 0, tally, victims);
  const auto calls = static_cast<std::uint64_t>(tally.calls);
  const std::uint64_t replay = FromEnvironment("MS_TORTURE_REPLAY", 0);
  for (std::uint64_t seed = replay > 0 ? replay : first;; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<Death> deaths(random() % 9);
    for (Death& death : deaths) {
      death = {1 + static_cast<std::int64_t>(random() % calls), kCrashes[random() % 4]};
    }
    RunJob(seed, deaths, error_every, tally, victims);
    if (tally.wrong.size() >= kEnoughWrong || replay > 0 || !clock.GoesOn(tally.crashes)) break;
  }
  Report(suite, tally, first);
}

// In shards, which ctest runs side by side.
class ShardedCrashTest : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Torture, ShardedCrashTest, testing::Range<std::uint64_t>(0, kShards));

TEST_P(ShardedCrashTest, RandomDeathsLoseAndDoubleNothing) {
  RunRandomJobs("crash, random", GetParam(), 455'000 / kSlowness, 0);
}

TEST_P(ShardedCrashTest, RandomDeathsAmongErrorsLoseAndDoubleNothing) {
  RunRandomJobs("crash, random with errors", GetParam(), 50'000 / kSlowness, 300);
}

TEST_P(ShardedCrashTest, RandomDeathsOfRetriesAmongErrorsLoseAndDoubleNothing) {
  RunRandomJobs("crash, random retries", GetParam(), 8'000 / kSlowness, 200, Victims::kRetries);
}

}  // namespace
}  // namespace millstream
