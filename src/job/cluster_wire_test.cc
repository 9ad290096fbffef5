// SPDX-License-Identifier: Apache-2.0
#include "job/cluster_wire.h"

#include <filesystem>
#include <random>

#include "gtest/gtest.h"
#include "pipeline/parse_spec.h"

namespace millstream {
namespace {

JobSpec SomeSpec() {
  return ParseJobText("input: a.jsonl\noutput: out\n", "jobs/job.yaml", {}).ValueOrDie();
}

TEST(ClusterWireTest, AJobArrivesWithAbsolutePathsAndItsText) {
  JobOptions options;
  options.file = "jobs/job.yaml";
  options.overrides.output = "elsewhere/out";
  options.overrides.vars = {{"lang", "French"}};
  options.restart = true;
  options.accept_changes = {"seed"};
  options.limit = 7;
  const auto read = DecodeJob(EncodeJob(SomeSpec(), options));
  ASSERT_TRUE(read.ok()) << read.status().message();
  const std::filesystem::path here = std::filesystem::current_path();
  EXPECT_EQ(read->file, (here / "jobs/job.yaml").string());
  EXPECT_EQ(read->overrides.output, (here / "elsewhere/out").string());
  EXPECT_EQ(read->overrides.vars, options.overrides.vars);
  EXPECT_EQ(read->text, SomeSpec().text);
  EXPECT_TRUE(read->restart);
  EXPECT_FALSE(read->append);
  EXPECT_EQ(read->accept_changes, options.accept_changes);
  EXPECT_EQ(read->limit, 7);
}

TEST(ClusterWireTest, AnObjectStoresAddressStaysAsItIs) {
  JobOptions options;
  options.file = "jobs/job.yaml";
  options.overrides.output = "s3://bucket/out";
  EXPECT_EQ(DecodeJob(EncodeJob(SomeSpec(), options))->overrides.output, "s3://bucket/out");
}

TEST(ClusterWireTest, AMonitorShowsWhatAnotherShowed) {
  JobMonitor monitor;
  JobMonitor::Progress progress;
  progress.rows_total = 9;
  progress.rows = {3, 2, 1};
  progress.rows_in_hand = 3;
  progress.rows_before = {1, 0, 1};
  progress.tokens.prompt_tokens = 11;
  progress.tokens.cost = 0.5;
  monitor.Show(progress, {{"parse", {2, "a.jsonl:3: no JSON"}}});
  monitor.cut_answers = 4;
  JobMonitor other;
  ASSERT_TRUE(DecodeShown(EncodeShown(monitor), other).ok());
  EXPECT_EQ(EncodeShown(other), EncodeShown(monitor));
  EXPECT_EQ(other.progress().rows.error, 2);
  EXPECT_EQ(other.progress().tokens.cost, 0.5);
  EXPECT_EQ(other.errors().at("parse").example, "a.jsonl:3: no JSON");
  EXPECT_EQ(other.cut_answers, 4);
}

TEST(ClusterWireTest, AnEndComesOutAsItWentIn) {
  JobReport report;
  report.exit = ExitCode::kTooManyErrors;
  report.output = "/out";
  report.rows = {5, 6, 7};
  report.errors = {{"timeout", {6, "a.jsonl:1: slow"}}};
  report.tokens.restarts = 2;
  report.seconds = 1.5;
  report.why_stopped = "the disk is full";
  const auto read = DecodeEnd(EncodeEnd(report));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(EncodeEnd(*read), EncodeEnd(report));
  EXPECT_EQ(read->rows.skipped, 7);
  EXPECT_EQ(read->tokens.restarts, 2);
}

TEST(ClusterWireTest, AFailureKeepsItsExitCodeAndItsWords) {
  const std::vector<Status> failures = {
      Status::Invalid("a"), EngineBroken("b"), Conflict("c"), Status::Cancelled("d")
  };
  for (const Status& failure : failures) {
    const auto read = DecodeEnd(EncodeEnd(failure));
    EXPECT_EQ(read.status().message(), failure.message());
    EXPECT_EQ(ExitCodeOf(read.status()), ExitCodeOf(failure));
  }
  EXPECT_EQ(ExitCodeOf(DecodeFailure("\3words")), ExitCode::kEngineBroken);
  EXPECT_EQ(DecodeFailure("\3words").message(), "words");
  EXPECT_FALSE(DecodeFailure("").ok());
}

TEST(ClusterWireTest, BytesThatAreNoneAreRefused) {
  JobOptions options;
  options.file = "job.yaml";
  const std::string job = EncodeJob(SomeSpec(), options), end = EncodeEnd(JobReport());
  for (std::size_t length = 0; length < job.size(); ++length) {
    EXPECT_FALSE(DecodeJob(job.substr(0, length)).ok()) << length;
  }
  for (std::size_t length = 0; length < end.size(); ++length) {
    EXPECT_FALSE(DecodeEnd(end.substr(0, length)).ok()) << length;
  }
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {  // any are read without harm
    std::string changed = i % 2 == 0 ? job : end;
    for (int j = 0; j < 3; ++j) changed[random() % changed.size()] = static_cast<char>(random());
    (void)DecodeJob(changed);
    (void)DecodeEnd(changed);
    JobMonitor monitor;
    (void)DecodeShown(changed, monitor);
  }
}

}  // namespace
}  // namespace millstream
