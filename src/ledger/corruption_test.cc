// SPDX-License-Identifier: Apache-2.0
// Suite 9 of docs/reliability.md: every byte of every file of a small job, finished and
// interrupted, is changed, the file ends there, or junk follows it. A driver must say so, or end
// the job whole.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "base/torture.h"
#include "fmt/format.h"
#include "ledger/testing.h"

namespace millstream {
namespace {

using Files = std::map<std::string, std::string>;

constexpr std::string_view kParts = "/d/out/";

std::int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

struct Tally {
  std::int64_t cases = 0, detected = 0, harmless = 0;
  std::vector<std::string> wrong;
};

// The files of a job whose driver died at a call, or that is complete. `calls` gets those it made.
Files FilesOfJob(std::uint64_t seed, std::int64_t die_at, std::int64_t* calls = nullptr) {
  const auto disk = std::make_shared<SimulatedDisk>();
  const std::unique_ptr<Storage> storage = MakeDiskStorage(disk);
  JobWorld world;
  std::mt19937_64 choices(seed);
  disk->DieAt(die_at);
  const Status ran = MadeUpDriver(*storage, world, choices).Run();
  EXPECT_EQ(ran.ok(), die_at == 0) << ran;
  if (calls != nullptr) *calls = disk->num_changes();
  return disk->Files();
}

// What is wrong with what a driver makes of these files, one of which is damaged; or nothing.
std::string Judge(const Files& files, const std::string& damaged, Tally& tally) {
  const auto disk = std::make_shared<SimulatedDisk>();
  for (const auto& [path, bytes] : files) disk->Plant(path, bytes);
  const std::unique_ptr<Storage> storage = MakeDiskStorage(disk);
  JobWorld world;
  world.has_damage = true;
  std::mt19937_64 choices(5);
  Status ran = MadeUpDriver(*storage, world, choices).Run();
  const auto after = disk->Files();
  for (const auto& [path, bytes] : files) {
    if (path.starts_with(kParts) && (!after.contains(path) || after.at(path) != bytes)) {
      return path + " was touched";
    }
  }
  if (!world.wrong.empty()) return world.wrong.front();
  if (ran.ok()) {  // whole, to this driver and to the next
    if (!world.complete) return "it is not complete";
    ran = MadeUpDriver(*storage, world, choices).Run();
    if (!ran.ok()) return "the next driver: " + ran.ToString();
    auto ledger = Ledger::Load(*storage, MadeUpDriver::Layout()).ValueOrDie();
    const auto parts = ledger->Parts().ValueOrDie();
    for (const auto& [split, part] : parts) {
      if (ran.ok()) ran = ledger->CheckPart(split, part);
    }
  }
  if (!ran.ok()) {
    ++tally.detected;
    return IsConflict(ran) ? "" : "no conflict, but " + ran.ToString();
  }
  if (damaged.starts_with(kParts)) return "nobody noticed";
  ++tally.harmless;
  CheckWhole(*disk, world);
  return world.wrong.empty() ? "" : world.wrong.front();
}

void Try(Files& files, const std::string& path, std::string bytes, Tally& tally, std::string how) {
  std::string& file = files[path];
  if (bytes == file) return;
  std::swap(file, bytes);
  ++tally.cases;
  const std::string wrong = Judge(files, path, tally);
  std::swap(file, bytes);
  if (!wrong.empty()) tally.wrong.push_back(fmt::format("{}, {}: {}", path, how, wrong));
}

void DamageEveryByte(Files& files, const std::string& path, std::int64_t step, Tally& tally) {
  const std::string bytes = files[path];
  const auto size = static_cast<std::int64_t>(bytes.size());
  for (std::int64_t at = step / 2; at < size; at += step) {
    const auto i = static_cast<std::size_t>(at);
    std::string changed = bytes;
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      changed[i] = static_cast<char>(bytes[i] ^ flip);
      Try(files, path, changed, tally, fmt::format("byte {} ^ {}", at, flip));
    }
    for (const char with : std::string("09-.\"}] \n\\e\0", 12)) {  // what means something in JSON
      changed[i] = with;
      Try(files, path, changed, tally, fmt::format("byte {} = {}", at, int{with}));
    }
    changed = bytes;
    Try(files, path, changed.erase(i, 1), tally, fmt::format("without byte {}", at));
    Try(files, path, bytes.substr(0, i), tally, fmt::format("cut at {}", at));
  }
  std::mt19937_64 random(size);
  for (std::size_t more = 1; more <= 4096; more *= 2) {
    std::string junk(more, '\0');
    Try(files, path, bytes + junk, tally, fmt::format("{} zeros more", more));
    for (char& byte : junk) byte = static_cast<char>(random());
    Try(files, path, bytes + junk, tally, fmt::format("{} bytes of junk more", more));
    Try(files, path, junk, tally, fmt::format("{} bytes of junk", more));
    const std::string tail = bytes.substr(bytes.size() - std::min(more, bytes.size()));
    Try(files, path, bytes + tail, tally, fmt::format("its last {} bytes twice", more));
  }
}

void DamageAll(Files files, const char* suite) {
  // A sanitizer keeps what was freed for a while.
  constexpr std::int64_t kMuch = (kIsSlow ? 1024LL : 256LL) << 20;
  const std::int64_t before = PeakBytes();
  Tally tally;
  EXPECT_EQ(Judge(files, "", tally), "");
  std::vector<std::string> paths;
  for (const auto& [path, bytes] : files) {
    // A driver removes tmp/ unread, and writes LOCK anew.
    if (path.find("/tmp/") == std::string::npos && !path.ends_with("/LOCK")) paths.push_back(path);
  }
  for (const std::string& path : paths) DamageEveryByte(files, path, kIsSlow ? 31 : 1, tally);
  EXPECT_LT(PeakBytes() - before, kMuch) << "a damaged size was believed";
  fmt::print(
      "TORTURE {{\"suite\": \"{}\", \"seed\": 0, \"files\": {}, \"cases\": {}, \"detected\": {}, "
      "\"harmless\": {}, \"wrong\": {}}}\n",
      suite,
      paths.size(),
      tally.cases,
      tally.detected,
      tally.harmless,
      tally.wrong.size()
  );
  for (std::size_t i = 0; i < tally.wrong.size() && i < 5; ++i) ADD_FAILURE() << tally.wrong[i];
}

TEST(TortureCorruptionTest, AnyDamageToAFinishedJobIsFoundOrHarmless) {
  DamageAll(FilesOfJob(1, 0), "corruption, finished job");
}

bool HasFile(const Files& files, std::string_view what) {
  return std::any_of(files.begin(), files.end(), [&](const auto& file) {
    return file.first.find(what) != std::string::npos;
  });
}

TEST(TortureCorruptionTest, AnyDamageToAnInterruptedJobIsFoundOrHarmless) {
  constexpr std::int64_t kStates = 5;
  for (std::int64_t state = 0; state < kStates; ++state) {
    const auto seed = static_cast<std::uint64_t>(state) + 1;
    std::int64_t calls = 0, published = 1;
    (void)FilesOfJob(seed, 0, &calls);
    while (!HasFile(FilesOfJob(seed, published), kParts)) ++published;
    // The first has a part that no journal names yet.
    const std::int64_t die_at = published + (calls - published) * state / kStates;
    const Files files = FilesOfJob(seed, die_at);
    EXPECT_TRUE(HasFile(files, "/rows/") && HasFile(files, "/intents/"));
    DamageAll(files, "corruption, interrupted job");
  }
}

}  // namespace
}  // namespace millstream
