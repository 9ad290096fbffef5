// SPDX-License-Identifier: Apache-2.0
// A worker whose coordinator is the test: what it begins and what it gives back. What it waits for
// in vain shows as this test's timeout; the time between two reports says nothing.
#include "job/worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <set>

#include "base/mutex.h"
#include "engine/scripted_engine.h"
#include "fmt/format.h"
#include "job/testing.h"
#include "job/worker_wire.h"
#include "model/testing.h"
#include "storage/storage.h"
#include "storage/testing.h"

namespace millstream {
namespace {

constexpr std::int64_t kRows = 40;
constexpr std::int64_t kSplitRows = 10;

// What an engine was asked, and how much of it is under way.
struct Asked {
  Mutex mutex;
  std::map<std::string, int> prompts MS_GUARDED_BY(mutex);
  std::int64_t submitted MS_GUARDED_BY(mutex) = 0, answered MS_GUARDED_BY(mutex) = 0;
  std::int64_t fewest MS_GUARDED_BY(mutex) = kRows;  // under way when the next came, but the first
};

// Notes each request on its way into a scripted engine.
class NotingEngine final : public Engine {
 public:
  NotingEngine(Asked& asked, std::shared_ptr<const LanguageModel> model, ScriptedEngineOptions base)
      : asked_(asked), model_(std::move(model)), base_(MakeScriptedEngine(std::move(base))) {}
  Room room() const override { return base_->room(); }
  void Submit(Request request) override {
    {
      MutexLock lock(asked_.mutex);
      ++asked_.prompts[model_->tokenizer->Decode(request.prompt_tokens, true).ValueOrDie()];
      const std::int64_t under_way = asked_.submitted - asked_.answered;
      if (asked_.submitted > 0) asked_.fewest = std::min(asked_.fewest, under_way);
      ++asked_.submitted;
    }
    base_->Submit(std::move(request));
  }
  void Cancel(RequestId id) override { base_->Cancel(id); }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    return base_->Poll(deadline, std::move(stop));
  }
  EngineStats stats() const override { return base_->stats(); }

 private:
  Asked& asked_;
  const std::shared_ptr<const LanguageModel> model_;
  const std::unique_ptr<Engine> base_;
};

class WorkerTest : public testing::Test {
 protected:
  // A job of rows "row 0" and so on in splits of so many, begun by a driver that did nothing of it.
  void Begin(std::int64_t split_rows) {
    std::string rows;
    for (int i = 0; i < kRows; ++i) rows += fmt::format("{{\"text\": \"row {}\"}}\n", i);
    ASSERT_TRUE(WriteFile(folder_ / "rows.jsonl", rows).ok());
    ASSERT_TRUE(WriteFile(folder_ / "tiny.gguf", TinyGguf({}).Build().first).ok());
    const std::string job = fmt::format(
        "models: {{tiny: {{path: tiny.gguf}}}}\ninput: {{path: rows.jsonl}}\nsplit_rows: {}\n"
        "output: {{path: out, format: jsonl}}\nsteps:\n"
        "  - generate: {{model: tiny, raw_prompt: \"{{{{ text }}}}\", as: answer, max_tokens: "
        "8}}\n",
        split_rows
    );
    ASSERT_TRUE(WriteFile(folder_ / "job.yaml", job).ok());
    options_.job.file = folder_ / "job.yaml";
    options_.epoch = 1;
    options_.number = 2;
    options_.threads = 1;
    script_.is_due = [](const Request&) { return true; };
    script_.answer = [this](const Request&) {
      MutexLock lock(asked_.mutex);
      ++asked_.answered;
      Completion completion;
      completion.text = "yes";
      return completion;
    };
    options_.make_engine = [this](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
      return std::make_unique<NotingEngine>(asked_, bound.model, script_);
    };
    std::stop_source drain;
    drain.request_stop();
    JobOptions driver = options_.job;
    driver.make_engine = options_.make_engine;
    driver.drain = drain.get_token();
    const auto report = RunQuietly(*storage_, driver);
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_EQ(report->exit, ExitCode::kStopped);
  }

  using Answer = std::function<WorkerAnswer(const WorkerMessage&)>;
  // Runs the worker; `answer` is its coordinator, which hears reports before the last.
  Status Run(const Answer& answer) {
    const Exchange exchange = [&](std::string_view bytes) -> Result<std::string> {
      MS_ASSIGN_OR_RETURN(const WorkerMessage message, DecodeWorkerMessage(bytes));
      failure_ = message.failure;
      exit_ = message.exit;
      for (const RowRange& range : message.report.done) done_.insert(range);
      for (const auto& [split, part] : message.parts) published_.insert(split);
      return Encode(message.report.leaves ? WorkerAnswer() : answer(message));
    };
    return RunWorker(*storage_, options_, exchange, [](const std::string&) {}, {});
  }

  // All rows are there, and no engine has to be asked anything more.
  void ExpectComplete() {
    MutexLock lock(asked_.mutex);
    EXPECT_EQ(asked_.prompts.size(), static_cast<std::size_t>(kRows));
    for (const auto& [prompt, times] : asked_.prompts) EXPECT_EQ(times, 1) << prompt;
    JobOptions driver = options_.job;
    driver.make_engine = [](const BoundModel&) -> Result<std::unique_ptr<Engine>> {
      return Status::Invalid("rows are missing");
    };
    EXPECT_EQ(failure_, "");
    const auto report = RunQuietly(*storage_, driver);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->rows, (RowCounts{kRows, 0, 0}));
  }

  std::int64_t submitted() {
    MutexLock lock(asked_.mutex);
    return asked_.submitted;
  }

  const TempFolder folder_;
  const std::unique_ptr<Storage> storage_ = MakeLocalStorage();
  WorkerOptions options_;
  ScriptedEngineOptions script_;
  Asked asked_;
  std::set<RowRange> done_;
  std::set<std::int64_t> published_;
  std::string failure_;  // as the last report says
  ExitCode exit_ = ExitCode::kComplete;
};

// Each report that asks for rows gets one lease, and the engine answers its last request only when
// the next row has come.
TEST_F(WorkerTest, TheEngineIsNeverEmptyWhileThereAreRowsThoughTheirLeasesComeOneByOne) {
  Begin(kSplitRows);
  options_.interval = std::chrono::hours(1);  // it reports when there is something to say
  script_.max_requests = 4;
  script_.per_poll = 1;
  script_.is_due = [this](const Request&) {
    MutexLock lock(asked_.mutex);
    return asked_.submitted - asked_.answered > 1 || asked_.submitted == kRows;
  };
  std::int64_t given = 0;
  const Status status = Run([&](const WorkerMessage& message) {
    WorkerAnswer answer;
    answer.orders.is_over = std::ssize(published_) == kRows / kSplitRows;
    if (message.report.wants_rows > 0 && given < kRows) {
      const std::int64_t split = given / kSplitRows;
      answer.orders.take = {{100 + split, {split, 0, kSplitRows}}};
      given += kSplitRows;
    }
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
  {
    MutexLock lock(asked_.mutex);
    EXPECT_GE(asked_.fewest, 1);
  }
  ExpectComplete();
}

TEST_F(WorkerTest, RowsThatAreTakenAwayAreNotAskedOfTheEngineAndBegunOnesAreKept) {
  Begin(kRows);
  options_.interval = std::chrono::milliseconds(1);
  script_.max_requests = 4;
  std::atomic<bool> answers = false;
  script_.is_due = [&answers](const Request&) { return answers.load(); };
  const RowRange all{0, 0, kRows}, kept{0, 0, 4}, rest{0, 4, kRows};
  enum { kStart, kBegins, kShortened, kRest, kWhole } stage = kStart;
  const Status status = Run([&](const WorkerMessage& message) {
    const WorkerReport& report = message.report;
    WorkerAnswer answer;
    answer.orders.is_over = published_.contains(0);
    if (stage == kStart) {
      answer.orders.take = {{100, all}};
      stage = kBegins;
    } else if (stage == kBegins && report.held.at(0).begun == 4) {
      answer.orders.shorten = {{100, {0, 0, 2}}};  // two more were begun meanwhile
      stage = kShortened;
    } else if (stage == kShortened && !answers) {
      EXPECT_EQ(report.held.at(0).lease.range, kept);
      EXPECT_EQ(submitted(), 4);
      answers = true;
    } else if (stage == kShortened && done_.contains(kept)) {
      EXPECT_TRUE(report.held.empty() || report.held.at(0).lease.range == kept);
      EXPECT_EQ(submitted(), 4);
      answer.orders.take = {{101, rest}};
      stage = kRest;
    } else if (stage == kRest && done_.contains(rest)) {
      answer.orders.take = {{102, all}};  // to be published
      stage = kWhole;
    }
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(done_, (std::set<RowRange>{kept, rest}));
  ExpectComplete();
}

TEST_F(WorkerTest, LeasesOfOneSplitAreRunAtTheSameTime) {
  Begin(kRows);
  options_.interval = std::chrono::milliseconds(1);
  script_.is_due = [this](const Request&) {
    MutexLock lock(asked_.mutex);
    return asked_.submitted == kRows;
  };
  const RowRange all{0, 0, kRows}, first{0, 0, 15}, second{0, 15, kRows};
  std::int64_t last = 99;
  const Status status = Run([&](const WorkerMessage& /*message*/) {
    WorkerAnswer answer;
    answer.orders.is_over = published_.contains(0);
    if (last == 99) {
      answer.orders.take = {{100, first}, {101, second}};
      last = 101;
    } else if (last == 101 && done_.size() == 2) {
      answer.orders.take = {{++last, all}};
    }
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(done_, (std::set<RowRange>{first, second}));
  ExpectComplete();
}

// Its coordinator may lend it once more what it has just done: the second part is not to be written
// over the first, which may be on its way to its place.
TEST_F(WorkerTest, ASplitThatItIsLentAgainBeforeItsPartStandsHasAnotherFile) {
  Begin(kRows);
  options_.interval = std::chrono::milliseconds(1);
  std::vector<std::int32_t> failing;
  script_.answer = [&failing](const Request& request) {
    Completion completion;
    if (failing.empty()) failing = request.prompt_tokens;
    if (request.prompt_tokens == failing) {  // a reason to hold the part back
      completion.reason = FinishReason::kError;
      completion.error_code = "engine_failed";
    }
    return completion;
  };
  std::int64_t lease = 100, ended = 0;
  const Status status = Run([&](const WorkerMessage& message) {
    const RowRange all{0, 0, kRows};
    WorkerAnswer answer;
    answer.orders.is_over = published_.contains(0);
    for (const HeldLease& held : message.report.held) {
      if (held.oldest.count() > 0 && held.begun == kRows) ended = held.lease.number;
    }
    if (lease == 100 && ended == 100) {
      answer.orders.end = {100};
      lease = 101;
    }
    if (ended < 101)
      answer.orders.take = {{lease, all}};  // more may come: it publishes nothing yet
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(failure_, "");
  EXPECT_EQ(ended, 101);
}

TEST_F(WorkerTest, AWorkerThatDrainsFinishesWhatIsBegunAndGivesTheRestBack) {
  Begin(kRows);
  options_.interval = std::chrono::milliseconds(1);
  script_.max_requests = 4;
  std::atomic<bool> answers = false;
  script_.is_due = [&answers](const Request&) { return answers.load(); };
  bool has_lease = false;
  const Status status = Run([&](const WorkerMessage& message) {
    WorkerAnswer answer;
    if (!std::exchange(has_lease, true)) {
      answer.orders.take = {{100, {0, 0, kRows}}};
    } else if (submitted() == 4) {
      answer.drains = true;
    }
    if (!message.report.held.empty() && message.report.held[0].lease.range.end == 4) answers = true;
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(submitted(), 4);
  EXPECT_EQ(done_, (std::set<RowRange>{{0, 0, 4}}));
}

TEST_F(WorkerTest, WhatKeepsAPartFromBeingPublishedIsInItsLastReport) {
  Begin(kRows);
  std::filesystem::create_directories(folder_ / "out");
  ASSERT_TRUE(WriteFile(folder_ / "out/part-000000.jsonl", "{}\n").ok());
  bool has_lease = false;
  const Status status = Run([&](const WorkerMessage& /*message*/) {
    WorkerAnswer answer;
    if (!std::exchange(has_lease, true)) answer.orders.take = {{100, {0, 0, kRows}}};
    return answer;
  });
  EXPECT_TRUE(IsConflict(status)) << status;
  EXPECT_EQ(failure_, status.message());
  EXPECT_EQ(exit_, ExitCode::kConflict);
}

TEST_F(WorkerTest, ARowThatHangsHoldsNobodyUpOnceAllIsDoneElsewhere) {
  Begin(kRows);
  options_.interval = std::chrono::milliseconds(1);
  script_.is_due = [](const Request&) { return false; };
  bool has_lease = false;
  const Status status = Run([&](const WorkerMessage& /*message*/) {
    WorkerAnswer answer;
    if (!std::exchange(has_lease, true)) answer.orders.take = {{100, {0, 0, kRows}}};
    answer.orders.is_over = submitted() > 0;
    return answer;
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace millstream
