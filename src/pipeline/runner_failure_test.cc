// SPDX-License-Identifier: Apache-2.0
// How a run ends early: an engine that dies, a sink that fails, a stop at any moment. Nothing may
// hang; a hang shows as this test's timeout.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "engine/scripted_engine.h"
#include "fmt/format.h"
#include "pipeline/testing.h"
#include "storage/testing.h"

namespace millstream {
namespace {

constexpr int kRows = 30;
constexpr std::int64_t kSplitRows = 4;

class RunnerFailureTest : public testing::Test {
 protected:
  // Two generate steps on two engines, or none.
  void Bind(bool generates) {
    std::string rows;
    for (int id = 1; id <= kRows; ++id) {
      rows += fmt::format("{{\"id\": {}, \"text\": \"{}\"}}\n", id, std::string(100, 'q'));
    }
    const char* steps =
        "  - generate: {model: first, raw_prompt: \"{{ id }}\", as: a, max_tokens: 8}\n"
        "  - generate: {model: second, raw_prompt: \"{{ a }}\", as: b, max_tokens: 8}\n";
    auto job =
        TestJob::Make(folder_.path(), rows, generates ? steps : "  - filter: \"{{ id > 0 }}\"\n");
    ASSERT_TRUE(job.ok()) << job.status();
    job_ = *std::move(job);
  }

  static ScriptedEngineOptions Echo() {
    ScriptedEngineOptions options;
    options.answer = [](const Request& request) {
      Completion completion;
      completion.text = TestJob::PromptOf(request);
      return completion;
    };
    options.per_poll = 2;
    return options;
  }

  Status Run(
      const ScriptedEngineOptions& first,
      const ScriptedEngineOptions& second,
      RecordedRows& rows,
      std::stop_token stop = {}
  ) {
    const auto one = MakeScriptedEngine(first);
    const auto two = MakeScriptedEngine(second);
    return job_->Run(
        options_, kSplitRows, {{"first", one.get()}, {"second", two.get()}}, rows, stop
    );
  }

  const TempFolder folder_;
  std::unique_ptr<TestJob> job_;
  RunnerOptions options_{/*threads=*/3, /*batch_rows=*/3, /*budget_bytes=*/1 << 20};
};

TEST_F(RunnerFailureTest, TheDeathOfAnEngineAfterAnyAnswerEndsTheRunWithIt) {
  Bind(true);
  for (const bool dies_first : {true, false}) {
    for (int answers = 0; answers < kRows; ++answers) {
      SCOPED_TRACE(answers);
      ScriptedEngineOptions dying = Echo();
      dying.die_after = answers;
      RecordedRows rows;
      const Status status = dies_first ? Run(dying, Echo(), rows) : Run(Echo(), dying, rows);
      EXPECT_EQ(status.message(), "engine died: as scripted");
      EXPECT_LE(rows.rows().size(), static_cast<std::size_t>(answers));
    }
  }
}

TEST_F(RunnerFailureTest, ADeathEndsTheRunWhileTheOtherEngineNeverAnswers) {
  Bind(true);
  ScriptedEngineOptions dying = Echo(), silent = Echo();
  dying.die_after = 3;
  silent.is_due = [](const Request&) { return false; };
  silent.max_requests = 1;
  RecordedRows rows;
  EXPECT_EQ(Run(dying, silent, rows).message(), "engine died: as scripted");
  EXPECT_TRUE(rows.rows().empty());
}

TEST_F(RunnerFailureTest, AnExceptionOfAnEngineIsTheRunsError) {
  Bind(true);
  ScriptedEngineOptions throwing;
  throwing.answer = [](const Request&) -> Completion { throw std::runtime_error("boom"); };
  RecordedRows rows;
  EXPECT_EQ(Run(throwing, Echo(), rows).message(), "engine died: boom");
}

TEST_F(RunnerFailureTest, AStopWithRowsInTheEngineAndAFullBudgetEndsTheRun) {
  Bind(true);
  for (const std::int64_t budget_bytes : {1, 400, 1 << 20}) {
    options_.budget_bytes = budget_bytes;
    std::stop_source stop;
    int looks = 0;
    ScriptedEngineOptions silent;
    silent.is_due = [&](const Request&) {
      if (++looks == kRows) stop.request_stop();
      return false;
    };
    RecordedRows rows;
    EXPECT_TRUE(Run(silent, Echo(), rows, stop.get_token()).IsCancelled());
    EXPECT_TRUE(rows.rows().empty());
  }
}

// A stop that came with the last row found nothing to stop.
void ExpectStopped(const Status& status, const RecordedRows& rows) {
  const bool is_whole = rows.rows().size() == static_cast<std::size_t>(kRows);
  EXPECT_TRUE(is_whole ? status.ok() : status.IsCancelled()) << status;
}

TEST_F(RunnerFailureTest, AStopAfterAnyAnswerEndsTheRun) {
  Bind(true);
  for (int answers = 1; answers <= kRows; ++answers) {
    std::stop_source stop;
    std::atomic<int> given = 0;
    ScriptedEngineOptions stopping = Echo();
    stopping.answer = [&](const Request& request) {
      if (++given == answers) stop.request_stop();
      return Echo().answer(request);
    };
    RecordedRows rows;
    ExpectStopped(Run(Echo(), stopping, rows, stop.get_token()), rows);
  }
}

TEST_F(RunnerFailureTest, AStopBeforeTheStartReadsNothing) {
  std::stop_source stop;
  stop.request_stop();
  for (const bool generates : {true, false}) {
    Bind(generates);
    RecordedRows rows;
    EXPECT_TRUE(Run(Echo(), Echo(), rows, stop.get_token()).IsCancelled());
    EXPECT_TRUE(rows.rows().empty());
  }
}

TEST_F(RunnerFailureTest, TheFailureOrStopOfTheSinkAtAnyPieceEndsTheRun) {
  for (const bool generates : {true, false}) {
    Bind(generates);
    for (const bool fails : {true, false}) {
      for (int piece = 1;; ++piece) {
        SCOPED_TRACE(fmt::format("generates {}, fails {}, piece {}", generates, fails, piece));
        std::stop_source stop;
        std::atomic<int> pieces = 0;
        RecordedRows rows;
        rows.on_finish = [&](const FinishedRows&) {
          if (++pieces != piece) return Status::OK();
          if (!fails) stop.request_stop();
          return fails ? Status::IOError("no room") : Status::OK();
        };
        const Status status = Run(Echo(), Echo(), rows, stop.get_token());
        if (pieces < piece) {
          EXPECT_TRUE(status.ok()) << status;
          EXPECT_EQ(rows.rows().size(), static_cast<std::size_t>(kRows));
          break;
        }
        if (fails) {
          ASSERT_EQ(status.message(), "no room");
        } else {
          ExpectStopped(status, rows);
        }
      }
    }
  }
}

// The text that the rows keep is counted, so the engine sees no more rows than the budget holds.
TEST_F(RunnerFailureTest, TheBudgetBoundsWhatIsBeforeTheEngine) {
  Bind(true);
  constexpr std::int64_t kRowBytes = 100;
  options_.batch_rows = 1;
  options_.budget_bytes = 8 * kRowBytes;
  std::stop_source stop;
  std::set<RequestId> seen;
  int looks = 0;
  ScriptedEngineOptions silent;
  silent.max_requests = kRows;
  silent.is_due = [&](const Request& request) {
    seen.insert(request.id);
    // The oldest split comes whole in any case.
    if (++looks >= 5 * kRows && seen.size() >= kSplitRows) stop.request_stop();
    return false;
  };
  RecordedRows rows;
  EXPECT_TRUE(Run(silent, Echo(), rows, stop.get_token()).IsCancelled());
  EXPECT_LE(seen.size(), 8U);
}

TEST_F(RunnerFailureTest, AnEngineGetsNoMoreThanItHasRoomForAndOneRowIfItHasNone) {
  Bind(true);
  for (const std::size_t room : {0U, 1U, 3U}) {
    std::stop_source stop;
    std::set<RequestId> seen;
    int looks = 0;
    ScriptedEngineOptions silent;
    silent.max_requests = static_cast<std::int64_t>(room);
    silent.is_due = [&](const Request& request) {
      seen.insert(request.id);
      if (++looks >= kRows && seen.size() >= room) stop.request_stop();
      return false;
    };
    RecordedRows rows;
    EXPECT_TRUE(Run(silent, Echo(), rows, stop.get_token()).IsCancelled());
    EXPECT_EQ(seen.size(), std::max<std::size_t>(room, 1));
  }
}

}  // namespace
}  // namespace millstream
