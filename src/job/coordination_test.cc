// SPDX-License-Identifier: Apache-2.0
#include "job/coordination.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

#include "arrow/compute/initialize.h"
#include "job/execute.h"
#include "job/retry.h"
#include "job/testing.h"
#include "job/worker.h"

namespace millstream {
namespace {

constexpr std::int64_t kPlace = 6;  // of the row that kills, in split 0
constexpr std::int64_t kRecord = kPlace + 1;

// A small job that a driver has begun, and workers of it in this process.
class CoordinationTest : public testing::TestWithParam<bool> {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(arrow::compute::Initialize().ok()); }

  void SetUp() override {
    options_ = small_.OptionsFor("out", "jsonl");
    std::stop_source stop;
    stop.request_stop();
    JobOptions begun = options_;
    begun.drain = stop.get_token();
    ASSERT_EQ(RunQuietly(*local_, begun)->exit, ExitCode::kStopped);
    auto prepared = PrepareJob(*local_, options_, PrepareFor::kRun, say_, {});
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    job_ = *std::move(prepared);
    ASSERT_TRUE(job_.ledger->Begin(ThisDriver()).ok());
    coordination_ = std::make_unique<Coordination>(
        job_, job_.plan.splits, std::chrono::seconds(15), monitor_, say_
    );
  }

  // Does all that is left, in this process.
  Status WorkAs(std::int64_t number, const Exchange& exchange, std::uint32_t epochs_ago = 0) {
    WorkerOptions options;
    options.job.file = options_.file;
    options.job.overrides = options_.overrides;
    options.epoch = job_.ledger->epoch() - epochs_ago;
    options.number = number;
    options.threads = 1;
    options.make_engine = [this](const BoundModel& bound) -> Result<std::unique_ptr<Engine>> {
      ScriptedEngineOptions script;
      script.answer = [this, model = bound.model](const Request& request) {
        Completion completion = SmallJob::Answer(request, *model);
        asked_.push_back(completion.text);
        if (kills_ && completion.text == "re: row 7") {
          completion.reason = FinishReason::kError;
          completion.error_code = "crash";
          completion.error_message = "the engine dies of this row alone";
          completion.killed_engine = true;
        }
        return completion;
      };
      return MakeScriptedEngine(std::move(script));
    };
    return RunWorker(*local_, options, exchange, say_, {});
  }

  WorkerAnswer Tell(const WorkerMessage& message) {
    const auto bytes = coordination_->Hear(Encode(message), {});
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return DecodeWorkerAnswer(*bytes).ValueOrDie();
  }
  WorkerMessage ReportOf(std::int64_t worker) const {
    WorkerMessage message;
    message.epoch = job_.ledger->epoch();
    message.report.worker = worker;
    message.report.number = 1;
    message.report.wants_rows = 1;
    return message;
  }

  // Workers die with the row in hand until it is to blame; others hold what else there is, and
  // leave.
  void LetARowKill() {
    said_.clear();
    std::vector<std::int64_t> others;
    for (std::int64_t worker = 100; said_.empty(); ++worker) {
      ASSERT_LT(worker, 200);
      WorkerMessage message = ReportOf(worker);
      const WorkerAnswer answer = Tell(message);
      ASSERT_EQ(answer.orders.take.size(), 1U);
      const RowRange range = answer.orders.take[0].range;
      if (range.split == 0 && range.begin <= kPlace && kPlace < range.end) {
        ASSERT_TRUE(coordination_->Die(worker, /*may_be_a_row=*/true, "SIGSEGV").ok());
      } else {
        others.push_back(worker);
      }
    }
    for (const std::int64_t worker : others) {
      ASSERT_TRUE(coordination_->Die(worker, /*may_be_a_row=*/false, "SIGKILL").ok());
    }
  }

  std::vector<JournalEntry> PoisonInJournal() const {
    std::vector<JournalEntry> found;
    const auto history = ReadJournals(*local_, small_.PathOf("out.millstream"));
    for (const JournalEntry& entry : history->entries) {
      if (entry.type == EntryType::kPoison) found.push_back(entry);
    }
    return found;
  }

  std::vector<std::string> Expected() const {
    std::vector<std::string> lines = SmallJob::Expected(GetParam());
    lines[kPlace] = "7 error crash";
    return lines;
  }
  bool WasAsked() const {
    return std::find(asked_.begin(), asked_.end(), "re: row 7") != asked_.end();
  }

  const SmallJob small_{GetParam()};
  const std::unique_ptr<Storage> local_ = MakeLocalStorage();
  const Say say_ = [this](const std::string& message) { said_ += message + "\n"; };
  std::string said_;
  JobOptions options_;
  JobMonitor monitor_;
  PreparedJob job_;
  std::unique_ptr<Coordination> coordination_;
  std::vector<std::string> asked_;  // of engines
  bool kills_ = false;
};

INSTANTIATE_TEST_SUITE_P(Jobs, CoordinationTest, testing::Bool(), [](const auto& has_model) {
  return has_model.param ? "Model" : "Plain";
});

TEST_P(CoordinationTest, AWorkerOfAnEarlierDriverBeginsAnewAndItsFailureEndsNoJob) {
  const Exchange exchange = [this](std::string_view report) {
    return coordination_->Hear(report, {});
  };
  const Status stopped = WorkAs(50, exchange, /*epochs_ago=*/1);
  EXPECT_TRUE(stopped.ok() || stopped.IsCancelled()) << stopped;
  EXPECT_TRUE(asked_.empty());
  WorkerMessage failed = ReportOf(51);
  failed.epoch -= 1;
  failed.failure = "the unpublished part is gone";
  failed.exit = ExitCode::kWrong;
  const WorkerAnswer answer = Tell(failed);
  EXPECT_TRUE(answer.stops);
  EXPECT_TRUE(answer.orders.take.empty());
  EXPECT_EQ(coordination_->num_workers(), 0);
  ASSERT_TRUE(WorkAs(52, exchange).ok());
  EXPECT_TRUE(coordination_->is_over());
  EXPECT_EQ(small_.Found("out"), SmallJob::Expected(GetParam()));
}

// Its process before may stand still for good, and hold the lock.
TEST_P(CoordinationTest, ACoordinatorThatBeginsAnewNeedsNoLockOfItsOwnProcessBefore) {
  const OutputLayout layout = job_.ledger->layout();
  job_.lock.reset();
  JobOptions first;
  first.coordinator = "a";
  const auto held = LockOutput(*local_, layout, first);
  ASSERT_TRUE(held.ok() && *held != nullptr);
  JobOptions next = first;
  EXPECT_TRUE(LockOutput(*local_, layout, next).status().IsCancelled());  // a second of its name
  next.begins_anew = true;
  const auto taken_over = LockOutput(*local_, layout, next);
  ASSERT_TRUE(taken_over.ok()) << taken_over.status();
  EXPECT_EQ(*taken_over, nullptr);
  next.coordinator = "b";
  EXPECT_TRUE(LockOutput(*local_, layout, next).status().IsCancelled());
  next.coordinator = "";
  EXPECT_TRUE(LockOutput(*local_, layout, next).status().IsCancelled());
}

// A native engine would begin them all.
TEST_P(CoordinationTest, RowsAreLeftForWorkersThatAreToBeHeard) {
  std::vector<std::int64_t> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(coordination_->NewWorker(options_, 1).number);
  WorkerMessage message = ReportOf(workers[0]);
  message.report.wants_rows = SmallJob::kRows;
  // Whole splits of nine rows, up to 16, the least that a range is divided into.
  const std::size_t share = GetParam() ? 2 : 3;  // without a model nothing is divided
  EXPECT_EQ(Tell(message).orders.take.size(), share);
  for (const std::int64_t worker : {workers[1], workers[2]}) {
    ASSERT_TRUE(coordination_->Die(worker, false, "SIGKILL").ok());
  }
  ++message.report.number;
  EXPECT_EQ(
      Tell(message).orders.take.size(), 3U
  );  // those that it does not say to hold, and the rest
}

TEST_P(CoordinationTest, AWorkersFailureIsTheJobsWithItsExitCodeAndItsWords) {
  for (const ExitCode exit :
       {ExitCode::kWrong, ExitCode::kEngineBroken, ExitCode::kConflict, ExitCode::kStopped}) {
    WorkerMessage message = ReportOf(2);
    message.failure = "its disk is full";
    message.exit = exit;
    const Status failure = coordination_->Hear(Encode(message), {}).status();
    EXPECT_EQ(ExitCodeOf(failure), exit);
    EXPECT_EQ(failure.message(), message.failure);
    EXPECT_FALSE(failure.IsCancelled());  // nobody has asked for it
  }
}

TEST_P(CoordinationTest, RowsAreShownBeforeTheirPartStandsAndOnce) {
  monitor_.Start(RowsOf(job_.plan.splits), {}, {});
  WorkerMessage message = ReportOf(2);
  message.rows = {3, 1, 0};
  message.stats.prompt_tokens = 5;
  Tell(message);
  Tell(message);  // it comes twice
  coordination_->Show();
  EXPECT_EQ(monitor_.progress().rows_in_hand, 4);
  EXPECT_EQ(monitor_.progress().rows.total(), 0);
  ASSERT_TRUE(coordination_->Die(2, /*may_be_a_row=*/false, "SIGKILL").ok());
  coordination_->Show();
  EXPECT_EQ(monitor_.progress().rows_in_hand, 0);  // they may come again
  EXPECT_EQ(monitor_.progress().tokens.prompt_tokens, 5);
  const Exchange exchange = [this](std::string_view report) {
    auto answer = coordination_->Hear(report, {});
    coordination_->Show();
    const auto progress = monitor_.progress();
    EXPECT_LE(progress.rows_finished(), progress.rows_total);
    return answer;
  };
  ASSERT_TRUE(WorkAs(3, exchange).ok());
  EXPECT_EQ(monitor_.progress().rows.total(), monitor_.progress().rows_total);
  EXPECT_EQ(monitor_.progress().rows_in_hand, 0);
}

TEST_P(CoordinationTest, ARowThatWorkersDieOfFailsAndTheJobGoesOn) {
  LetARowKill();
  for (const char* part : {"rows.jsonl:7", "crash", "3 workers", "SIGSEGV", "millstream retry"}) {
    EXPECT_NE(said_.find(part), std::string::npos) << said_;
  }
  const auto poison = PoisonInJournal();
  ASSERT_EQ(poison.size(), 1U);
  EXPECT_EQ(poison[0].body["file"], 0);
  EXPECT_EQ(poison[0].body["record"], kRecord);
  EXPECT_FALSE(poison[0].body.contains("step"));
  const Status worked = WorkAs(2, [this](std::string_view report) -> Result<std::string> {
    MS_ASSIGN_OR_RETURN(std::string bytes, coordination_->Hear(report, {}));
    MS_ASSIGN_OR_RETURN(const WorkerAnswer answer, DecodeWorkerAnswer(bytes));
    for (const Lease& lease : answer.orders.take) {
      EXPECT_NE(lease.range, (RowRange{0, kPlace, kPlace + 1}));  // nothing is left to do for it
    }
    return bytes;
  });
  ASSERT_TRUE(worked.ok()) << worked;
  EXPECT_TRUE(coordination_->is_over());
  EXPECT_EQ(small_.Found("out"), Expected());
  EXPECT_FALSE(WasAsked());
  EXPECT_EQ(asked_.empty(), !GetParam());
}

TEST_P(CoordinationTest, AWorkerThatIsAtWorkHearsOfARowThatOthersDiedOf) {
  bool is_first = true;
  const Status worked = WorkAs(2, [this, &is_first](std::string_view report) {
    if (std::exchange(is_first, false)) LetARowKill();  // after it has read the journal
    return coordination_->Hear(report, {});
  });
  ASSERT_TRUE(worked.ok()) << worked;
  EXPECT_EQ(small_.Found("out"), Expected());
  EXPECT_FALSE(WasAsked());
}

TEST_P(CoordinationTest, ALaterRunDoesNotTryTheRowAndARetryDoes) {
  LetARowKill();
  coordination_.reset();
  job_ = {};  // its lock as well
  const auto resumed = RunQuietly(*local_, options_);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(small_.Found("out"), Expected());
  ASSERT_TRUE(resumed->errors.contains("crash"));
  RetryOptions retry;
  retry.output = small_.PathOf("out");
  retry.where = "crash";
  retry.make_engine = options_.make_engine;
  const auto retried = RetryRows(*local_, retry, monitor_, say_, {});
  ASSERT_TRUE(retried.ok()) << retried.status();
  EXPECT_EQ(retried->gained, 1);
  EXPECT_EQ(small_.Found("out"), SmallJob::Expected(GetParam()));
}

TEST_P(CoordinationTest, WorkersThatDieAndDieWhileNothingIsDoneEndTheJob) {
  Status died = Status::OK();
  int deaths = 0;
  for (; died.ok() && deaths < 100; ++deaths) {
    Tell(ReportOf(100 + deaths));
    died = coordination_->Die(100 + deaths, /*may_be_a_row=*/deaths % 2 == 0, "SIGSEGV");
    Tell(ReportOf(1'000 + deaths));
    ASSERT_TRUE(coordination_->Die(1'000 + deaths, /*may_be_a_row=*/false, "").ok());
  }
  EXPECT_TRUE(IsEngineBroken(died)) << died;
  EXPECT_NE(died.message().find("SIGSEGV"), std::string::npos);
  EXPECT_EQ(deaths, 30);
}

TEST_P(CoordinationTest, DeathsBetweenRowsThatAreDoneEndNoJob) {
  for (std::int64_t worker = 100; worker < 200; ++worker) {
    WorkerMessage message = ReportOf(worker);
    const auto take = Tell(message).orders.take;
    if (worker % 20 == 0) {  // done, if not published
      ++message.report.number;
      message.report.done.push_back({2, (worker - 100) / 20, (worker - 100) / 20 + 1});
      Tell(message);
    }
    const Status died = coordination_->Die(worker, /*may_be_a_row=*/worker % 2 == 0, "SIGSEGV");
    ASSERT_TRUE(died.ok()) << worker << ": " << died;
  }
}

TEST_P(CoordinationTest, WhatAWorkerSaysOfARowOthersHearOnce) {
  WorkerMessage message = ReportOf(2);
  message.entries = {
      {EntryType::kPoison, 0, {{"record", 5}}}, {EntryType::kPoison, 0, {{"record", 6}}}
  };
  Tell(message);
  EXPECT_EQ(PoisonInJournal().size(), 2U);
  message = ReportOf(3);
  const WorkerAnswer all = Tell(message);
  ASSERT_EQ(all.poison.size(), 2U);
  EXPECT_EQ(all.poison[0].body["record"], 5);
  ++message.report.number;
  message.num_poison = 1;
  const WorkerAnswer rest = Tell(message);
  ASSERT_EQ(rest.poison.size(), 1U);
  EXPECT_EQ(rest.poison[0].body["record"], 6);
  ++message.report.number;
  message.num_poison = 1'000;
  EXPECT_TRUE(Tell(message).poison.empty());
}

using ModelCoordinationTest = CoordinationTest;

INSTANTIATE_TEST_SUITE_P(Jobs, ModelCoordinationTest, testing::Values(true));

TEST_P(ModelCoordinationTest, AWorkerThatComputesOtherwiseIsRefusedUnlessTheJobDoesNotMind) {
  const std::string here = job_.plan.instruction_set;
  const std::string other = here == "reference" ? "avx2" : "reference";
  const Exchange exchange = [this](std::string_view report) {
    return coordination_->Hear(report, {});
  };
  // What answers are known by.
  const auto identity = [this] {
    const auto job = PrepareJob(*local_, options_, PrepareFor::kPreview, say_, {});
    return job->models.begin()->second.identity;
  };
  const std::string strict_here = identity();
  setenv("MILLSTREAM_ISA", other.c_str(), 1);
  EXPECT_NE(identity(), strict_here);
  const Status refused = WorkAs(2, exchange);
  options_.overrides.sets.emplace_back("reproducible", "relaxed");
  const std::string relaxed_there = identity();
  const Status worked = WorkAs(3, exchange);
  unsetenv("MILLSTREAM_ISA");
  EXPECT_EQ(identity(), relaxed_there);
  EXPECT_EQ(
      refused.message(),
      "this worker's machine computes otherwise (instruction set " + other +
          ") than the job's rows so far (" + here +
          "), so that answers may differ between them. Either set `isa: reference` for the whole "
          "job, which all of its machines have, or `reproducible: relaxed`, if such differences do "
          "not matter"
  );
  ASSERT_TRUE(worked.ok()) << worked;
  EXPECT_EQ(small_.Found("out"), SmallJob::Expected(true));
}

// The whole of a divided split is published by another worker than the one whose engine died.
TEST_P(ModelCoordinationTest, ARowThatKilledTheEngineOfOneWorkerIsNotTriedByAnother) {
  std::vector<JournalEntry> poison;
  const auto first = [&](std::string_view report) -> Result<std::string> {
    const WorkerMessage message = DecodeWorkerMessage(report).ValueOrDie();
    poison.insert(poison.end(), message.entries.begin(), message.entries.end());
    WorkerAnswer answer;
    answer.orders.is_over = !message.report.done.empty();
    if (message.report.number == 1) answer.orders.take = {{1, {0, 0, kPlace + 1}}};
    return Encode(answer);
  };
  const auto second = [&](std::string_view report) -> Result<std::string> {
    const WorkerMessage message = DecodeWorkerMessage(report).ValueOrDie();
    WorkerAnswer answer;
    answer.orders.is_over = !message.report.published.empty();
    if (message.report.number == 1) {
      kills_ = true;
      EXPECT_TRUE(WorkAs(2, first).ok());
      EXPECT_TRUE(WasAsked());
      asked_.clear();
      answer.orders.take = {{2, {0, 0, 9}}};
      answer.poison = poison;
    } else {
      EXPECT_EQ(message.num_poison, 1);
    }
    return Encode(answer);
  };
  const Status worked = WorkAs(3, second);
  ASSERT_TRUE(worked.ok()) << worked;
  EXPECT_EQ(poison.size(), 1U);
  EXPECT_EQ(
      asked_, (std::vector<std::string>{"re: refuse 2", "re: row 8"})
  );  // of those, none durable
  const std::vector<std::string> expected = Expected();
  EXPECT_EQ(small_.Found("out"), std::vector<std::string>(expected.begin(), expected.begin() + 9));
}

}  // namespace
}  // namespace millstream
