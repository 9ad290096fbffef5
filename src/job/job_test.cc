// SPDX-License-Identifier: Apache-2.0
#include "job/job.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <set>
#include <utility>

#include "arrow/compute/initialize.h"
#include "base/torture.h"
#include "fmt/format.h"
#include "job/retry.h"
#include "job/testing.h"
#include "job/verify.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

// A kind of output that a job may write.
struct Shape {
  const char* name;
  const char* suffix;  // of the output's path: one file, or none: a folder of parts
  const char* format;
  bool has_model;
};

class JobTest : public testing::TestWithParam<Shape> {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  std::string Fresh() { return fmt::format("out{}{}", ++outputs_, GetParam().suffix); }

  JobOptions OptionsFor(const std::string& output, std::int64_t batch_rows = 1024) const {
    JobOptions options = job_.OptionsFor(output, GetParam().format);
    options.runner.threads = 2;
    options.runner.batch_rows = batch_rows;
    return options;
  }
  bool IsParquet() const { return std::string(GetParam().format) == "parquet"; }
  std::vector<std::string> Expected() const { return SmallJob::Expected(GetParam().has_model); }

  // What stands is whole: each row once and in order, all accounts the same, nothing else beside
  // the parts.
  void ExpectWhole(const std::string& output) {
    const std::vector<std::string> expected = Expected();
    if (!IsParquet()) {
      EXPECT_EQ(job_.Found(output), expected);
    }
    const auto verified =
        VerifyOutput(*local_, job_.PathOf(output), {.digest = true, .deep = true});
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->complete);
    EXPECT_EQ(verified->counts, SmallJob::Counts(expected));
    if (digest_.empty()) digest_ = verified->digest;
    EXPECT_EQ(verified->digest, digest_);
    const auto success = local_->Read(job_.PathOf(output) + ".millstream/success.json", 4096);
    ASSERT_TRUE(success.ok()) << success.status();
    const auto manifest = nlohmann::json::parse(*success);
    EXPECT_EQ(manifest["ok"], verified->counts.ok);
    EXPECT_EQ(manifest["error"], verified->counts.error);
    EXPECT_EQ(manifest["skipped"], verified->counts.skipped);
    EXPECT_EQ(manifest["rows"], SmallJob::kRows);
    if (!fs::is_directory(job_.PathOf(output))) return;
    for (const auto& entry : fs::directory_iterator(job_.PathOf(output))) {
      EXPECT_TRUE(entry.path().filename().string().starts_with("part-")) << entry.path();
    }
  }

  // What stands after a failure is true, if not whole.
  void ExpectNothingFalse(const std::string& output) {
    if (fs::exists(job_.PathOf(output) + ".millstream/job.json")) {
      const auto verified = VerifyOutput(*local_, job_.PathOf(output), {});
      EXPECT_TRUE(verified.ok()) << verified.status();
    }
    if (IsParquet()) return;
    const std::vector<std::string> found = job_.Found(output), expected = Expected();
    EXPECT_TRUE(
        std::includes(expected.begin(), expected.end(), found.begin(), found.end(), ByRecord)
    );
  }

  // Completes what an earlier run left, and then finds nothing to do.
  void ExpectRerunCompletes(const std::string& output) {
    const auto second = RunQuietly(*local_, OptionsFor(output));
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ(second->exit, ExitCode::kComplete);
    EXPECT_EQ(second->rows, SmallJob::Counts(Expected()));
    ExpectWhole(output);
    const auto third = RunQuietly(*local_, OptionsFor(output));
    ASSERT_TRUE(third.ok()) << third.status();
    EXPECT_TRUE(third->had_nothing_to_do);
    EXPECT_EQ(third->rows, SmallJob::Counts(Expected()));
  }

  static bool ByRecord(const std::string& a, const std::string& b) {
    const int first = std::stoi(a), second = std::stoi(b);
    return first != second ? first < second : a < b;
  }

  const SmallJob job_{GetParam().has_model};
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
  std::string digest_;
  int outputs_ = 0;
};

INSTANTIATE_TEST_SUITE_P(
    Shapes,
    JobTest,
    testing::Values(
        Shape{"Folder", "", "jsonl", false},
        Shape{"File", ".jsonl", "jsonl", false},
        Shape{"Parquet", "", "parquet", false},
        Shape{"Model", "", "jsonl", true}
    ),
    [](const auto& shape) { return shape.param.name; }
);

TEST_P(JobTest, AnUndisturbedRunGivesEachRowOnceAndTrueCounts) {
  const std::string output = Fresh();
  const auto report = RunQuietly(*local_, OptionsFor(output));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->exit, ExitCode::kComplete);
  EXPECT_EQ(report->rows, SmallJob::Counts(Expected()));
  ExpectWhole(output);
}

// The digests of the rerun are compared to each other and to the first run that nothing disturbed.
TEST_P(JobTest, WhicheverStorageOperationFailsARerunCompletesTheRows) {
  for (const Fault fault : {Fault::kFails, Fault::kFailsLate, Fault::kFailsForGood}) {
    if (IsParquet() && fault != Fault::kFails) continue;  // the files differ, not the account
    for (int n = 1;; ++n) {
      SCOPED_TRACE(fmt::format("operation {}, fault {}", n, static_cast<int>(fault)));
      const std::string output = Fresh();
      FaultyStorage faulty(*local_);
      faulty.FailAt(n, ENOSPC, fault);
      const auto first = RunQuietly(faulty, OptionsFor(output, /*batch_rows=*/3));
      EXPECT_TRUE(first.ok() || faulty.has_failed()) << first.status();
      if (first.ok()) {
        ExpectWhole(output);
      } else {
        EXPECT_EQ(ExitCodeOf(first.status()), ExitCode::kStopped) << first.status();
        ExpectNothingFalse(output);
      }
      ExpectRerunCompletes(output);
      if (HasFatalFailure() || !faulty.has_failed()) break;
    }
  }
}

// A driver that only was slow: at any of its operations the lock is lost, and another takes the job
// over, works to its end or dies as soon as it has begun. The slow one goes on, and ends whole or
// says that it was taken over.
TEST_P(JobTest, ADriverThatWasTakenOverSaysSo) {
  constexpr int kJustBegun = 14;  // operations
  int taken_over = 0;
  for (const bool ends : {true, false}) {
    for (int n = ends ? 1 : 3;; n += IsParquet() ? 9 : 5) {
      SCOPED_TRACE(fmt::format("operation {}, the other {}", n, ends ? "ends" : "dies"));
      const std::string output = Fresh();
      FaultyStorage slow(*local_), other(*local_);
      slow.CallAt(n, [&] {
        fs::remove(job_.PathOf(output) + ".millstream/LOCK");
        if (!ends) other.FailAt(kJustBegun, EIO, Fault::kFailsForGood);
        const Status ran = RunQuietly(other, OptionsFor(output)).status();
        EXPECT_EQ(ran.ok(), ends) << ran;
      });
      const auto first = RunQuietly(slow, OptionsFor(output, /*batch_rows=*/3));
      if (first.ok()) {
        EXPECT_EQ(first->exit, ExitCode::kComplete);
      } else {
        EXPECT_EQ(ExitCodeOf(first.status()), ExitCode::kStopped) << first.status();
        if (first.status().message().find("another run (process ") != std::string::npos) {
          ++taken_over;
        }
      }
      ExpectNothingFalse(output);
      ExpectRerunCompletes(output);
      if (HasFailure() || n > slow.num_operations()) break;
    }
  }
  EXPECT_GT(taken_over, 0);
}

// Outputs that the tests read on their own.
using TextJobTest = JobTest;
INSTANTIATE_TEST_SUITE_P(
    Shapes,
    TextJobTest,
    testing::Values(
        Shape{"Folder", "", "jsonl", false},
        Shape{"File", ".jsonl", "jsonl", false},
        Shape{"Model", "", "jsonl", true}
    ),
    [](const auto& shape) { return shape.param.name; }
);

TEST_P(TextJobTest, AStopAtAnyStorageOperationKeepsWhatStandsAndARerunCompletesIt) {
  bool was_partly_done = false;
  for (int n = 1;; ++n) {
    SCOPED_TRACE(n);
    const std::string output = Fresh();
    FaultyStorage storage(*local_);
    std::stop_source stop;
    storage.CallAt(n, [&] { stop.request_stop(); });
    const auto first = RunQuietly(storage, OptionsFor(output, /*batch_rows=*/3), stop.get_token());
    const ExitCode exit = first.ok() ? first->exit : ExitCodeOf(first.status());
    EXPECT_TRUE(exit == ExitCode::kStopped || exit == ExitCode::kComplete) << first.status();
    ExpectNothingFalse(output);
    if (exit == ExitCode::kStopped && first.ok()) {
      EXPECT_FALSE(fs::exists(job_.PathOf(output) + ".millstream/success.json"));
      was_partly_done |= first->rows.total() > 0 && first->rows.total() < SmallJob::kRows;
    }
    ExpectRerunCompletes(output);
    if (HasFatalFailure() || n > storage.num_operations()) break;
  }
  EXPECT_TRUE(was_partly_done);
}

TEST_P(TextJobTest, ARestartThatFailsAnywhereLosesNeitherTheOldRowsNorTheNew) {
  constexpr int kMoves = 14;  // the operations before the new run begins, and some
  for (const Fault fault : {Fault::kFails, Fault::kFailsLate}) {
    for (int n = 1; n <= kMoves; ++n) {
      SCOPED_TRACE(fmt::format("operation {}, fault {}", n, static_cast<int>(fault)));
      const std::string output = Fresh();
      ASSERT_TRUE(RunQuietly(*local_, OptionsFor(output)).ok());
      FaultyStorage faulty(*local_);
      faulty.FailAt(n, EIO, fault);
      JobOptions options = OptionsFor(output);
      options.restart = true;
      const auto restarted = RunQuietly(faulty, options);
      EXPECT_TRUE(restarted.ok() || faulty.has_failed()) << restarted.status();
      ExpectRerunCompletes(output);
      const std::string aside = output + ".old-1";
      if (fs::exists(job_.PathOf(aside))) {
        EXPECT_EQ(job_.Found(aside), Expected());
      }
      if (HasFatalFailure()) return;
    }
  }
}

using ModelJobTest = JobTest;
INSTANTIATE_TEST_SUITE_P(
    Model,
    ModelJobTest,
    testing::Values(Shape{"Model", "", "jsonl", true}),
    [](const auto& shape) { return shape.param.name; }
);

TEST_P(ModelJobTest, AnEngineThatDiesOrAStopAfterAnyAnswerCostsNoRow) {
  for (const bool dies : {true, false}) {
    for (int answers = 0;; ++answers) {
      SCOPED_TRACE(fmt::format("{} answers, {}", answers, dies ? "death" : "stop"));
      const std::string output = Fresh();
      std::stop_source stop;
      std::atomic<int> given = 0;
      JobOptions options = OptionsFor(output);
      options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
        ScriptedEngineOptions script;
        script.answer = [&, model = bound.model](const Request& request) {
          if (++given > answers && !dies) stop.request_stop();
          return SmallJob::Answer(request, *model);
        };
        script.per_poll = 1;
        script.max_requests = 3;
        if (dies) script.die_after = answers;
        return MakeScriptedEngine(std::move(script));
      };
      const auto first = RunQuietly(*local_, options, stop.get_token());
      const bool is_whole = first.ok() && first->exit == ExitCode::kComplete;
      if (dies && !is_whole) {
        EXPECT_EQ(first.status().message(), "engine died: as scripted");
      } else if (!is_whole) {
        ASSERT_TRUE(first.ok()) << first.status();
        EXPECT_EQ(first->exit, ExitCode::kStopped);
      }
      ExpectNothingFalse(output);
      ExpectRerunCompletes(output);
      if (HasFatalFailure() || is_whole) break;
    }
  }
}

// Whatever ends a run: what the engine answered is kept, and what it had begun at a stop goes on.
TEST_P(ModelJobTest, WhatWasAnsweredIsNeverAskedForAgain) {
  std::size_t num_cut = 0;
  for (const bool dies : {true, false}) {
    for (int answers = 0; answers < 12; ++answers) {
      SCOPED_TRACE(fmt::format("{} answers, {}", answers, dies ? "death" : "stop"));
      const std::string output = Fresh();
      std::stop_source stop;
      std::atomic<int> given = 0;
      std::set<std::uint64_t> answered, cut;
      JobOptions options = OptionsFor(output);
      options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
        ScriptedEngineOptions script;
        script.answer = [&, model = bound.model](const Request& request) {
          Completion answer = SmallJob::Answer(request, *model);
          if (answer.reason != FinishReason::kError) answered.insert(request.random.low);
          if (++given == answers && !dies) stop.request_stop();
          return answer;
        };
        script.cut = [&](const Request& request) {
          cut.insert(request.random.low);
          Completion completion;
          completion.tokens = {5, 6};
          return completion;
        };
        script.per_poll = 1;
        script.max_requests = 3;
        if (dies) script.die_after = answers;
        return MakeScriptedEngine(std::move(script));
      };
      (void)RunQuietly(*local_, options, stop.get_token());

      int asked_again = 0, gone_on = 0;
      JobOptions again = OptionsFor(output);
      again.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
        ScriptedEngineOptions script;
        script.answer = [&, model = bound.model](const Request& request) {
          if (answered.contains(request.random.low)) ++asked_again;
          const bool was_cut = cut.contains(request.random.low);
          if (was_cut) ++gone_on;
          EXPECT_EQ(request.generated_tokens.size(), was_cut ? 2U : 0U);
          return SmallJob::Answer(request, *model);
        };
        return MakeScriptedEngine(std::move(script));
      };
      const auto second = RunQuietly(*local_, again);
      ASSERT_TRUE(second.ok()) << second.status();
      EXPECT_EQ(asked_again, 0);
      EXPECT_EQ(gone_on, static_cast<int>(cut.size()));
      num_cut += cut.size();
      ExpectWhole(output);
    }
  }
  EXPECT_GT(num_cut, 0U);
}

// A drain begins no more rows, and loses none of those in the engine.
TEST_P(ModelJobTest, ADrainEndsWithTheRowsInTheEngine) {
  const std::string output = Fresh();
  std::stop_source drain;
  int given = 0, cut = 0;
  JobOptions options = OptionsFor(output);
  options.drain = drain.get_token();
  options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.answer = [&, model = bound.model](const Request& request) {
      if (++given == 2) drain.request_stop();
      return SmallJob::Answer(request, *model);
    };
    script.cut = [&](const Request&) {
      ++cut;
      return Completion{};
    };
    script.per_poll = 1;
    script.max_requests = 3;
    return MakeScriptedEngine(std::move(script));
  };
  const auto drained = RunQuietly(*local_, options);
  ASSERT_TRUE(drained.ok()) << drained.status();
  EXPECT_EQ(drained->exit, ExitCode::kStopped);
  EXPECT_EQ(cut, 0);
  EXPECT_GE(given, 2);
  EXPECT_LE(given, 6);
  ExpectNothingFalse(output);
  ExpectRerunCompletes(output);
}

// A stop that comes as the last rows end finds nothing to stop.
TEST_P(ModelJobTest, ADrainAtTheLastAnswerIsACompleteRun) {
  int answers = 0;
  for (const bool stops : {false, true}) {
    const std::string output = Fresh();
    std::stop_source drain;
    int given = 0;
    JobOptions options = OptionsFor(output);
    options.drain = drain.get_token();
    options.make_engine = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
      ScriptedEngineOptions script;
      script.answer = [&, model = bound.model](const Request& request) {
        if (++given == answers) drain.request_stop();
        return SmallJob::Answer(request, *model);
      };
      script.per_poll = 1;
      return MakeScriptedEngine(std::move(script));
    };
    const auto report = RunQuietly(*local_, options);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(drain.stop_requested(), stops);
    EXPECT_EQ(report->exit, ExitCode::kComplete);
    ExpectWhole(output);
    answers = given;
  }
}

// A driver that waits for its engine is taken for dead, and another one, whose engine gives other
// answers, publishes its parts and dies before the manifest: they are adopted, with their counts.
TEST_P(ModelJobTest, TheManifestCountsThePartsOfWhicheverDriverStand) {
  const auto with_engine = [](JobOptions options, auto answer) {
    options.make_engine = [answer](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
      ScriptedEngineOptions script;
      script.answer = [answer, model = bound.model](const Request& request) {
        return answer(request, *model);
      };
      return MakeScriptedEngine(std::move(script));
    };
    return options;
  };
  const auto refuse = [](const Request& request, const LanguageModel& model) {
    Completion completion = SmallJob::Answer(request, model);
    if (completion.text.find('7') == std::string::npos) return completion;
    completion.reason = FinishReason::kError;
    completion.error_code = "engine_failed";
    return completion;
  };
  FaultyStorage counted(*local_);
  const auto undisturbed = RunQuietly(counted, with_engine(OptionsFor(Fresh()), refuse));
  ASSERT_TRUE(undisturbed.ok()) << undisturbed.status();
  int adopted = 0;
  for (int n = counted.num_operations(); n > counted.num_operations() - 10; --n) {
    SCOPED_TRACE(fmt::format("the other one dies at its operation {}", n));
    const std::string output = Fresh();
    bool is_first = true;
    const auto answer = [&](const Request& request, const LanguageModel& model) {
      if (std::exchange(is_first, false)) {
        fs::remove(job_.PathOf(output) + ".millstream/LOCK");
        FaultyStorage other(*local_);
        other.FailAt(n, EIO, Fault::kFailsForGood);
        (void)RunQuietly(other, with_engine(OptionsFor(output), refuse));
      }
      return SmallJob::Answer(request, model);
    };
    const auto report = RunQuietly(*local_, with_engine(OptionsFor(output), answer));
    const auto verified = VerifyOutput(*local_, job_.PathOf(output), {});
    ASSERT_TRUE(verified.ok()) << verified.status();
    if (!report.ok()) continue;  // it says that it was taken over
    EXPECT_EQ(report->rows, verified->counts);
    adopted += verified->counts == undisturbed->rows ? 1 : 0;
  }
  EXPECT_GT(adopted, 0);
}

// A row that killed the engine is not tried again by the next run, and is by a retry.
TEST_P(ModelJobTest, ARowThatWasBlamedIsTriedAgainByARetryAlone) {
  const std::string output = Fresh();
  std::stop_source stop;
  int asked = 0, blamed = 0;
  bool is_mended = false;
  const EngineMaker make = [&](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.answer = [&, model = bound.model](const Request& request) {
      ++asked;
      Completion completion = SmallJob::Answer(request, *model);
      if (is_mended || completion.text.find("row 7") == std::string::npos) return completion;
      ++blamed;
      stop.request_stop();  // before its part can be committed
      completion.reason = FinishReason::kError;
      completion.error_code = "crash";
      completion.error_message = "the engine dies of this row alone";
      completion.killed_engine = true;
      return completion;
    };
    script.per_poll = 1;
    script.max_requests = 2;
    return MakeScriptedEngine(std::move(script));
  };
  JobOptions options = OptionsFor(output);
  options.make_engine = make;
  options.drain = stop.get_token();
  const auto stopped = RunQuietly(*local_, options);
  ASSERT_TRUE(stopped.ok()) << stopped.status();
  ASSERT_EQ(stopped->exit, ExitCode::kStopped);
  ASSERT_EQ(blamed, 1);
  options.drain = {};
  const auto resumed = RunQuietly(*local_, options);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->exit, ExitCode::kComplete);
  EXPECT_EQ(blamed, 1);
  ASSERT_TRUE(resumed->errors.contains("crash"));
  EXPECT_NE(
      resumed->errors.at("crash").example.find("the engine dies of this row alone"),
      std::string::npos
  );

  is_mended = true;
  asked = 0;
  RetryOptions retry;
  retry.output = job_.PathOf(output);
  retry.where = "crash";
  retry.make_engine = make;
  JobMonitor monitor;
  const auto retried = RetryRows(*local_, retry, monitor, [](const std::string&) {}, {});
  ASSERT_TRUE(retried.ok()) << retried.status();
  EXPECT_EQ(retried->gained, 1);
  EXPECT_EQ(asked, 1);
}

// A model that fails row after row ends the run; no such row is written, and a rerun tries all
// anew.
TEST_P(ModelJobTest, ABrokenModelStopsTheRunAndItsRowsAreTriedAgain) {
  const std::string output = Fresh();
  JobOptions options = OptionsFor(output);
  options.overrides.sets.emplace_back("breaker.first", "6");
  options.make_engine = [](const BoundModel&) -> Result<std::unique_ptr<Engine>> {
    ScriptedEngineOptions script;
    script.answer = [](const Request&) {
      Completion completion;
      completion.reason = FinishReason::kError;
      completion.error_code = "engine_failed";
      return completion;
    };
    return MakeScriptedEngine(std::move(script));
  };
  const Status broken = RunQuietly(*local_, options).status();
  EXPECT_EQ(ExitCodeOf(broken), ExitCode::kEngineBroken) << broken;
  for (const std::string& line : job_.Found(output)) {
    EXPECT_EQ(line.find("engine_failed"), std::string::npos) << line;
  }
  ExpectNothingFalse(output);
  ExpectRerunCompletes(output);
}

TEST_P(ModelJobTest, AnEngineThatDoesNotStartEndsTheRunBeforeAnyPart) {
  const std::string output = Fresh();
  JobOptions options = OptionsFor(output);
  options.make_engine = [](const BoundModel&) -> Result<std::unique_ptr<Engine>> {
    return Status::OutOfMemory("no room for the weights");
  };
  EXPECT_EQ(RunQuietly(*local_, options).status().message(), "no room for the weights");
  EXPECT_TRUE(job_.Found(output).empty());
  ExpectRerunCompletes(output);
}

// At whichever operation a retry fails: a reader finds each row once at every moment, and the next
// retry ends the work.
TEST(RetryTest, AFailureAnywhereLosesNothingAndTheNextOneEndsTheWork) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  constexpr struct {
    const char *output, *rows;
    bool prunes;
    int step;  // between operations that fail once; 0: and in the other ways too
  } kCases[] = {
      {"out.jsonl", "[ok, error]", false, 1},
      {"out", "[ok, error]", false, 0},
      {"out", "[ok]", false, 0},
      {"out", "[ok]", true, 1},
      {"out", "[error]", false, 8},
  };
  for (const auto& [output, rows, prunes, step] : kCases) {
    for (const Fault fault : {Fault::kFails, Fault::kFailsLate, Fault::kFailsForGood}) {
      if (step > 0 && fault != Fault::kFails) continue;
      for (int n = 1;; n += (fault == Fault::kFails ? std::max(1, step) : 4) * (kIsSlow ? 7 : 1)) {
        SCOPED_TRACE(fmt::format(
            "{}, rows {}, operation {}, fault {}", output, rows, n, static_cast<int>(fault)
        ));
        const SmallJob job{false};
        const std::unique_ptr<Storage> local = MakeLocalStorage();
        JobOptions run = job.OptionsFor(output, "jsonl");
        run.overrides.sets.emplace_back("output.rows", rows);
        ASSERT_TRUE(RunQuietly(*local, run).ok());
        const RowCounts before = VerifyOutput(*local, job.PathOf(output), {})->counts;

        FaultyStorage faulty(*local);
        faulty.FailAt(n, EIO, fault);
        RetryOptions retry;
        retry.output = job.PathOf(output);
        retry.sets = {{"steps.check1.that", "'{{ true }}'"}};
        retry.where = "check_failed";
        JobMonitor monitor;
        const Say quiet = [](const std::string&) {};
        const auto first = RetryRows(faulty, retry, monitor, quiet, {});
        EXPECT_TRUE(first.ok() || faulty.has_failed()) << first.status();
        const bool has_failed = faulty.has_failed();
        if (prunes) {  // what the part that stands names is no garbage, however the retry ended
          const Status pruned = PruneOutput(*local, retry.output);
          EXPECT_TRUE(pruned.ok()) << pruned;
        }
        const auto between = VerifyOutput(*local, job.PathOf(output), {.deep = true});
        ASSERT_TRUE(between.ok()) << between.status();
        EXPECT_TRUE(between->complete);

        const auto second = RetryRows(*local, retry, monitor, quiet, {});
        ASSERT_TRUE(second.ok()) << second.status();
        const auto after = VerifyOutput(*local, job.PathOf(output), {.deep = true});
        ASSERT_TRUE(after.ok()) << after.status();
        const RowCounts found = SmallJob::Counts(job.Found(output));
        EXPECT_EQ(found.ok, std::string_view(rows) == "[error]" ? 0 : after->counts.ok);
        EXPECT_EQ(found.error, std::string_view(rows) == "[ok]" ? 0 : after->counts.error);
        EXPECT_EQ(after->counts.total(), before.total());
        EXPECT_EQ(after->counts.skipped, before.skipped);
        EXPECT_EQ(after->counts.error, 3);  // the broken ones that are not skipped: no retry helps
        run.accept_all = true;
        const auto rerun = RunQuietly(*local, run);
        ASSERT_TRUE(rerun.ok()) << rerun.status();
        EXPECT_EQ(rerun->rows, after->counts);
        if (!has_failed) break;
      }
    }
  }
}

// Failed rows that a retry skips change what is accounted for, and no byte of a part that shows
// neither.
TEST(RetryTest, APartOfTheSameBytesIsAccountedForAnew) {
  ASSERT_TRUE(arrow::compute::Initialize().ok());
  for (int split_rows = 5; split_rows < 13; ++split_rows) {
    SCOPED_TRACE(fmt::format("{} rows in a split", split_rows));
    const SmallJob job{false};
    const std::unique_ptr<Storage> local = MakeLocalStorage();
    JobOptions run = job.OptionsFor("out", "jsonl");
    run.overrides.sets.emplace_back("output.rows", "[ok]");
    run.overrides.sets.emplace_back("split_rows", std::to_string(split_rows));
    ASSERT_TRUE(RunQuietly(*local, run).ok());
    const auto before = VerifyOutput(*local, job.PathOf("out"), {.digest = true});
    ASSERT_TRUE(before.ok()) << before.status();

    RetryOptions retry;
    retry.output = job.PathOf("out");
    retry.where = "check_failed";
    retry.sets = {{"steps.filter1", "'{{ id % 3 != 0 and id % 5 != 0 }}'"}};
    JobMonitor monitor;
    const auto retried = RetryRows(*local, retry, monitor, [](const std::string&) {}, {});
    ASSERT_TRUE(retried.ok()) << retried.status();
    ASSERT_GT(retried->gained, 0);
    const auto after = VerifyOutput(*local, job.PathOf("out"), {.digest = true, .deep = true});
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->digest, before->digest);
    EXPECT_EQ(after->counts.skipped, before->counts.skipped + retried->gained);
    EXPECT_EQ(after->counts.error, before->counts.error - retried->gained);
  }
}

class JobExitTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  ExitCode Run(const std::string& output, const std::string& max_errors) {
    JobOptions options = job_.OptionsFor(output, "jsonl");
    options.overrides.sets.emplace_back("max_errors", max_errors);
    const auto report = RunQuietly(*local_, options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? report->exit : ExitCodeOf(report.status());
  }

  const SmallJob job_{false};
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
};

TEST_F(JobExitTest, MoreErrorsThanTheLimitIsAnExitCodeAlsoOfARerun) {
  const RowCounts counts = SmallJob::Counts(SmallJob::Expected(false));
  const double percent =
      100.0 * static_cast<double>(counts.error) / static_cast<double>(counts.ok + counts.error);
  EXPECT_EQ(Run("a", std::to_string(counts.error)), ExitCode::kComplete);
  EXPECT_EQ(Run("a", std::to_string(counts.error - 1)), ExitCode::kTooManyErrors);
  EXPECT_EQ(Run("b", fmt::format("{}%", percent - 0.01)), ExitCode::kTooManyErrors);
  EXPECT_EQ(Run("b", fmt::format("{}%", percent + 0.01)), ExitCode::kComplete);
  // The rows are there all the same.
  EXPECT_EQ(job_.Found("b"), SmallJob::Expected(false));
}

TEST_F(JobExitTest, AnotherSpecIsRefusedAndTouchesNothing) {
  ASSERT_EQ(Run("a", "100"), ExitCode::kComplete);
  const auto before = local_->List(job_.PathOf("a.millstream")).ValueOrDie();
  JobOptions options = job_.OptionsFor("a", "jsonl");
  options.overrides.sets.emplace_back("steps.title.title", "'{{ text|lower }}'");
  const Status refused = RunQuietly(*local_, options).status();
  EXPECT_EQ(ExitCodeOf(refused), ExitCode::kWrong);
  EXPECT_NE(
      refused.message().find(R"("{{ text|upper }}" -> "{{ text|lower }}")"), std::string::npos
  ) << refused;
  EXPECT_EQ(job_.Found("a"), SmallJob::Expected(false));
  EXPECT_EQ(local_->List(job_.PathOf("a.millstream")).ValueOrDie().size(), before.size());
  // Anew, the old rows stand aside.
  options.restart = true;
  const auto report = RunQuietly(*local_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_NE(job_.Found("a"), SmallJob::Expected(false));
  EXPECT_EQ(job_.Found("a.old-1"), SmallJob::Expected(false));
}

TEST_P(JobTest, AnInputWithoutRowsIsCompleteWithOneEmptyPart) {
  std::ofstream(job_.folder() + "/rows.jsonl", std::ios::trunc).close();
  const std::string output = Fresh();
  JobOptions options = OptionsFor(output);
  options.overrides.sets.emplace_back("input.schema", "{id: int64, text: string}");
  const auto report = RunQuietly(*local_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->exit, ExitCode::kComplete);
  EXPECT_EQ(report->rows, RowCounts());
  const auto verified = VerifyOutput(*local_, job_.PathOf(output), {.digest = true, .deep = true});
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->complete);
  EXPECT_EQ(verified->parts, 1);
}

// A crash between the last part and the manifest: all rows stand, and no engine is started.
TEST_P(JobTest, ARerunThatFindsAllPartsWritesTheManifestWithoutAnEngine) {
  const std::string output = Fresh();
  JobOptions options = OptionsFor(output);
  ASSERT_TRUE(RunQuietly(*local_, options).ok());
  ASSERT_TRUE(local_->Remove(job_.PathOf(output) + ".millstream/success.json").ok());
  options.make_engine = [](const BoundModel&) -> Result<std::unique_ptr<Engine>> {
    return Status::Invalid("started");
  };
  const auto report = RunQuietly(*local_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->rows, SmallJob::Counts(Expected()));
  ExpectWhole(output);
}

TEST_F(JobExitTest, VerifyHoldsASingleFileAgainstItsPartsAndARerunPublishesOneThatIsGone) {
  for (const std::string format : {"jsonl", "csv", "parquet", "arrow"}) {
    const std::string output = "x." + format, other = "y." + format;
    JobOptions options = job_.OptionsFor(output, format);
    ASSERT_TRUE(RunQuietly(*local_, options).ok());
    const auto whole = VerifyOutput(*local_, job_.PathOf(output), {.digest = true, .deep = true});
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_TRUE(whole->complete);

    JobOptions fewer = job_.OptionsFor(other, format);
    fewer.limit = SmallJob::kRows / 2;
    ASSERT_TRUE(RunQuietly(*local_, fewer).ok());
    fs::copy_file(job_.PathOf(other), job_.PathOf(output), fs::copy_options::overwrite_existing);
    EXPECT_TRUE(IsConflict(VerifyOutput(*local_, job_.PathOf(output), {}).status())) << format;
    // One that differs in a value alone.
    JobOptions changed = job_.OptionsFor("z." + format, format);
    changed.overrides.sets.emplace_back("steps.title.title", "'{{ text|lower }}'");
    ASSERT_TRUE(RunQuietly(*local_, changed).ok());
    fs::copy_file(
        job_.PathOf("z." + format), job_.PathOf(output), fs::copy_options::overwrite_existing
    );
    const Status deep = VerifyOutput(*local_, job_.PathOf(output), {.deep = true}).status();
    EXPECT_TRUE(IsConflict(deep)) << format << deep;

    fs::remove(job_.PathOf(output));
    EXPECT_TRUE(IsConflict(VerifyOutput(*local_, job_.PathOf(output), {}).status())) << format;
    ASSERT_TRUE(RunQuietly(*local_, options).ok());
    const auto again = VerifyOutput(*local_, job_.PathOf(output), {.digest = true, .deep = true});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(again->complete);
    EXPECT_EQ(again->digest, whole->digest);
  }
}

}  // namespace
}  // namespace millstream
