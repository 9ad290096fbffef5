// SPDX-License-Identifier: Apache-2.0
// Suite 9 of docs/reliability.md over a whole job: bytes of every file of its state and output are
// changed, left out or added. `verify` and the next run must say so, or the rows are the same.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <random>

#include "arrow/compute/initialize.h"
#include "base/torture.h"
#include "fmt/format.h"
#include "job/testing.h"
#include "job/verify.h"
#include "ledger/testing.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

class TortureJobCorruptionTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  JobOptions Options(std::int64_t die_after) const {
    JobOptions options = job_.OptionsFor("out", "jsonl");
    options.runner.threads = 1;
    options.overrides.sets.emplace_back("breaker", "off");  // or no part with failed rows is there
    options.make_engine = [die_after](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
      ScriptedEngineOptions script;
      script.per_poll = 1;
      script.max_requests = 3;
      script.die_after = die_after;
      script.answer = [model = bound.model](const Request& request) {
        return SmallJob::Answer(request, *model);
      };
      return MakeScriptedEngine(std::move(script));
    };
    return options;
  }

  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const char* folder : {"out", "out.millstream"}) {
      if (!fs::exists(job_.PathOf(folder))) continue;
      for (const auto& entry : fs::recursive_directory_iterator(job_.PathOf(folder))) {
        if (!entry.is_regular_file() || entry.path().filename() == "LOCK") continue;
        files[entry.path()] = local_->Read(entry.path(), 1 << 20).ValueOrDie();
      }
    }
    return files;
  }

  void Write(const std::string& path, const std::string& bytes) {
    const auto stream = local_->Create(path).ValueOrDie();
    ASSERT_TRUE(stream->Write(bytes).ok() && stream->Close().ok());
  }

  void Restore(const std::map<std::string, std::string>& files) {
    for (const char* folder : {"out", "out.millstream"}) fs::remove_all(job_.PathOf(folder));
    for (const auto& [path, bytes] : files) Write(path, bytes);
  }

  static bool Tells(const Status& status) { return IsConflict(status) || status.IsInvalid(); }

  // A file holds other bytes; `undamaged` is what was verified before.
  // REQUIRES: `damaged` differs from what the file held.
  void Try(
      const std::map<std::string, std::string>& files,
      const std::string& path,
      const std::string& damaged,
      const Verification& undamaged,
      const std::string& how
  ) {
    SCOPED_TRACE(fmt::format("{}, {}", path, how));
    ++cases_;
    ASSERT_NE(damaged, files.at(path));
    Restore(files);
    Write(path, damaged);
    const bool is_part = path.starts_with(job_.PathOf("out") + "/");
    const auto verified = VerifyOutput(*local_, job_.PathOf("out"), {.digest = true, .deep = true});
    if (verified.ok()) {
      EXPECT_FALSE(is_part) << "nobody noticed";
      EXPECT_EQ(verified->counts, undamaged.counts);
      EXPECT_EQ(verified->digest, undamaged.digest);
    } else {
      EXPECT_TRUE(Tells(verified.status())) << verified.status();
      ++detected_;
    }
    if (is_part) return;  // a run looks at names and sizes alone
    const auto report = RunQuietly(*local_, Options(-1));
    if (!report.ok()) {
      EXPECT_TRUE(Tells(report.status())) << report.status();
      return;
    }
    EXPECT_EQ(report->exit, ExitCode::kComplete);
    EXPECT_EQ(job_.Found("out"), SmallJob::Expected(true));
    EXPECT_EQ(report->rows, SmallJob::Counts(SmallJob::Expected(true)));
  }

  void TryAll(std::int64_t die_after, const char* suite, std::size_t cases_a_file) {
    const std::uint64_t seed = TortureSeed();
    std::mt19937_64 random(seed);
    (void)RunQuietly(*local_, Options(die_after));
    const auto files = Files();
    const Verification undamaged =
        VerifyOutput(*local_, job_.PathOf("out"), {.digest = true, .deep = true}).ValueOrDie();
    EXPECT_EQ(undamaged.complete, die_after < 0);
    for (const auto& [path, bytes] : files) {
      if (path.starts_with(job_.PathOf("out.millstream/tmp/")) || bytes.empty()) continue;
      for (std::size_t i = 0; i < cases_a_file && !HasFailure(); ++i) {
        const std::size_t at = random() % bytes.size();
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(bytes[at] ^ (i % 3 == 0 ? 1 << random() % 8 : 255));
        Try(files, path, damaged, undamaged, fmt::format("seed {}, byte {}", seed, at));
        if (i % 4 != 0) continue;
        Try(files, path, bytes.substr(0, at), undamaged, fmt::format("seed {}, cut {}", seed, at));
        damaged = bytes;
        for (std::size_t more = 0; more <= at; ++more) damaged += static_cast<char>(random());
        Try(files, path, damaged, undamaged, fmt::format("seed {}, {} more", seed, at + 1));
      }
    }
    fmt::print(
        "TORTURE {{\"suite\": \"{}\", \"seed\": {}, \"cases\": {}, \"detected\": {}, \"wrong\": "
        "{}}}\n",
        suite,
        seed,
        cases_,
        detected_,
        HasFailure() ? 1 : 0
    );
  }

  const SmallJob job_{true};
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
  std::int64_t cases_ = 0, detected_ = 0;
};

constexpr std::size_t kCasesOfFile = kIsSlow ? 4 : 60;

TEST_F(TortureJobCorruptionTest, VerifyAndTheNextRunFindDamageToAFinishedJob) {
  TryAll(-1, "corruption, whole job", kCasesOfFile);
}

TEST_F(TortureJobCorruptionTest, VerifyAndTheNextRunFindDamageToAnInterruptedJob) {
  TryAll(7, "corruption, stopped job", kCasesOfFile);
}

}  // namespace
}  // namespace millstream
