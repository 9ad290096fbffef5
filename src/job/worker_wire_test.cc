// SPDX-License-Identifier: Apache-2.0
#include "job/worker_wire.h"

#include <gtest/gtest.h>

#include <random>

namespace millstream {
namespace {

WorkerMessage SomeMessage() {
  WorkerMessage message;
  message.report.worker = 3;
  message.report.number = 7;
  message.report.held = {{{(1LL << 40) + 5, {2, 0, 4096}}, 100, std::chrono::milliseconds(1500)}};
  message.report.done = {{1, 0, 16}, {1, 20, 30}};
  message.report.published = {4, 9};
  message.report.wants_rows = 12;
  message.report.rows_finished = 500;
  message.report.row_time = std::chrono::milliseconds(250);
  message.report.leaves = true;
  message.parts[4] = {
      {"0123456789abcdef", 1234}, {3, 2, 1}, std::nullopt, std::string("\0\x01", 2)
  };
  CommittedPart& part = message.parts[9];
  part.file = {"f", 1};
  part.counts = {1, 1, 0};
  part.errors = FileMark{"e", 2};
  message.entries = {{EntryType::kPoison, 0, {{"row", 5}}}};
  message.num_poison = 4;
  message.rows = {5, 6, 7};
  message.errors["parse"] = {6, "a.jsonl:3: no JSON"};
  message.stats.prompt_tokens = 8;
  message.stats.restarts = 9;
  message.cut_answers = 2;
  message.stats.cost = 0.25;
  message.failure = "the model is broken";
  message.exit = ExitCode::kEngineBroken;
  return message;
}

TEST(WorkerWireTest, AMessageComesOutAsItWentIn) {
  const std::string bytes = Encode(SomeMessage());
  const auto read = DecodeWorkerMessage(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(Encode(*read), bytes);
  EXPECT_EQ(read->report.held[0].lease.range, (RowRange{2, 0, 4096}));
  EXPECT_EQ(read->report.done, SomeMessage().report.done);
  EXPECT_TRUE(IsSame(read->parts.at(9), SomeMessage().parts.at(9)));
  EXPECT_EQ(read->parts.at(4).skipped_rows, std::string("\0\x01", 2));
  EXPECT_EQ(read->entries[0].body, SomeMessage().entries[0].body);
  EXPECT_EQ(read->num_poison, 4);
  EXPECT_EQ(read->errors.at("parse").example, "a.jsonl:3: no JSON");
  EXPECT_EQ(read->exit, ExitCode::kEngineBroken);
}

TEST(WorkerWireTest, OptionsComeOutAsTheyWentIn) {
  WorkerOptions options;
  options.job.file = "/jobs/job.yaml";
  options.job.text = "input: a.jsonl";
  options.job.overrides = {{{"lang", "French"}}, {{"split_rows", "5"}, {"seed", "7"}}, "out/b"};
  options.epoch = 4;
  options.number = 9;
  options.threads = 2;
  options.interval = std::chrono::milliseconds(30);
  const std::string bytes = Encode(options);
  const auto read = DecodeWorkerOptions(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(Encode(*read), bytes);
  EXPECT_EQ(read->job.overrides.sets, options.job.overrides.sets);
  EXPECT_EQ(read->job.overrides.output, "out/b");
  EXPECT_EQ(read->interval, options.interval);
  EXPECT_FALSE(DecodeWorkerOptions(bytes.substr(1)).ok());
}

TEST(WorkerWireTest, AnAnswerComesOutAsItWentIn) {
  WorkerAnswer answer;
  answer.orders.take = {{5, {1, 2, 3}}, {6, {1, 3, 9}}};
  answer.orders.shorten = {{4, {0, 0, 8}}};
  answer.orders.end = {1, 2};
  answer.orders.is_over = true;
  answer.poison = {
      {EntryType::kPoison, 0, {{"record", 5}}}, {EntryType::kPoison, 0, {{"record", 7}}}
  };
  answer.drains = true;
  const std::string bytes = Encode(answer);
  const auto read = DecodeWorkerAnswer(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(Encode(*read), bytes);
  EXPECT_EQ(read->orders.take[1].range, (RowRange{1, 3, 9}));
  EXPECT_EQ(read->poison.at(1).body, answer.poison[1].body);
  EXPECT_TRUE(read->drains);
}

TEST(WorkerWireTest, BytesThatAreNoneAreRefusedAndNameTheWayOut) {
  const std::string bytes = Encode(SomeMessage());
  std::mt19937_64 random(1);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(DecodeWorkerMessage(bytes.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(DecodeWorkerMessage(bytes + "x").ok());
  for (int i = 0; i < 20'000; ++i) {  // any are read without harm
    std::string changed = bytes;
    for (int j = 0; j < 3; ++j) changed[random() % changed.size()] = static_cast<char>(random());
    (void)DecodeWorkerMessage(changed);
    (void)DecodeWorkerAnswer(changed);
  }
  std::string other = bytes;
  other[0] = 99;
  EXPECT_NE(DecodeWorkerMessage(other).status().message().find("same"), std::string::npos);
}

}  // namespace
}  // namespace millstream
