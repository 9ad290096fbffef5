// SPDX-License-Identifier: Apache-2.0
// The runner with generate steps: the same rows whatever the run's shape and the engine's order.
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "engine/scripted_engine.h"
#include "engine/wire.h"
#include "fmt/format.h"
#include "pipeline/request_key.h"
#include "pipeline/testing.h"
#include "storage/testing.h"

namespace millstream {
namespace {

// A random job: which of its steps are there, and its rows.
struct Plan {
  bool filters, checks_before, checks_after, has_second, has_two_engines;
  std::int64_t samples;
  std::vector<char> rows;  // kinds, see Rows()
};

Plan RandomPlan(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto flip = [&] { return random() % 2 == 0; };
  Plan plan{
      flip(), flip(), flip(), flip(), flip(), 1 + static_cast<std::int64_t>(random() % 3), {}
  };
  const std::string kinds = random() % 8 == 0 ? "b-" : "wwwwwwweb-l";
  const std::size_t count = random() % 70;
  for (std::size_t i = 0; i < count; ++i) plan.rows.push_back(kinds[random() % kinds.size()]);
  return plan;
}

// A row's text: of a kind that the engine refuses (e), too long for the context (l), or plain (w).
std::string TextOf(char kind, std::int64_t id) {
  return fmt::format("{}{}{}", kind, id, kind == 'l' ? std::string(150, 'q') : "");
}

std::string Rows(const Plan& plan) {
  std::ostringstream rows;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i) + 1;
    const char kind = plan.rows[i];
    if (kind == 'b') {
      rows << "{broken\n";
    } else if (kind == '-') {  // without text
      rows << fmt::format("{{\"id\": {}}}\n", id);
    } else {
      rows << fmt::format("{{\"id\": {}, \"text\": \"{}\"}}\n", id, TextOf(kind, id));
    }
  }
  return rows.str();
}

std::string Steps(const Plan& plan) {
  std::string steps;
  if (plan.filters) steps += "  - filter: \"{{ id % 4 != 1 }}\"\n";
  if (plan.checks_before) {
    steps += "  - check: {that: \"{{ id % 5 != 2 }}\", code: early}\n    id: before\n";
  }
  steps += fmt::format(
      "  - generate: {{model: first, raw_prompt: \"{{{{ text }}}}\", add_special_tokens: false, "
      "as: a, n: {}, max_tokens: 8}}\n",
      plan.samples
  );
  if (plan.checks_after) {
    steps += "  - check: {that: \"{{ id % 7 != 3 }}\", code: late}\n    id: after\n";
  }
  if (plan.has_second) {
    steps += fmt::format(
        "  - generate: {{model: {}, raw_prompt: \"{{{{ id }}}} {{{{ {} }}}}\", add_special_tokens: "
        "false, as: b, max_tokens: 8}}\n",
        plan.has_two_engines ? "second" : "first",
        plan.samples == 1 ? "a" : "text"
    );
  }
  return steps + fmt::format("  - select: [id, a{}]\n", plan.has_second ? ", b" : "");
}

// What the engine makes of a prompt: a pure function of it and of the sample's random stream.
Completion Reply(const std::string& prompt, RandomKey key) {
  Completion completion;
  completion.text = fmt::format("<{}>{}", prompt, key.low % 100);
  completion.tokens = {7};
  if (key.low % 5 == 0) completion.reason = FinishReason::kLength;
  if (key.low % 5 == 1) completion.reason = FinishReason::kRunaway;
  if (prompt.starts_with('e') || key.low % 13 == 0) {
    completion.reason = FinishReason::kError;
    completion.error_code = "engine_failed";
  }
  return completion;
}

// What must become of each row, worked out one row at a time.
struct Outcome {
  std::map<std::int64_t, std::string> rows;
  std::int64_t cut_answers = 0;
};

std::string OutcomeOfRow(const Plan& plan, std::int64_t id, std::int64_t& cut_answers) {
  const char kind = plan.rows[static_cast<std::size_t>(id) - 1];
  if (kind == 'b') return "error read bad_json";
  if (plan.filters && id % 4 == 1) return "skipped";
  if (plan.checks_before && id % 5 == 2) return "error before early";
  if (kind == '-') return "error a undefined_value";
  if (kind == 'l') return "error a context_overflow";
  std::string text, list;
  bool failed = false;
  const auto ask = [&](const std::string& prompt, const char* step, std::int64_t sample) {
    const Completion reply = Reply(prompt, SampleKey(0, {0, id}, step, sample));
    cut_answers += reply.reason == FinishReason::kLength ? 1 : 0;
    failed |= reply.reason == FinishReason::kError;
    return reply.text;
  };
  for (std::int64_t sample = 0; sample < plan.samples; ++sample) {
    text = ask(TextOf(kind, id), "a", sample);
    list += (list.empty() ? "\"" : ",\"") + text + "\"";
  }
  if (failed) return "error a engine_failed";
  if (plan.checks_after && id % 7 == 3) return "error after late";
  std::string outcome = fmt::format("ok {} {}", id, plan.samples == 1 ? list : "[" + list + "]");
  if (!plan.has_second) return outcome;
  const std::string& source = plan.samples == 1 ? text : TextOf(kind, id);
  outcome += " \"" + ask(fmt::format("{} {}", id, source), "b", 0) + "\"";
  return failed ? "error b engine_failed" : outcome;
}

Outcome Expected(const Plan& plan) {
  Outcome outcome;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const auto id = static_cast<std::int64_t>(i) + 1;
    outcome.rows[id] = OutcomeOfRow(plan, id, outcome.cut_answers);
  }
  return outcome;
}

// How a run may differ without changing a row.
struct RunShape {
  RunnerOptions runner;
  std::int64_t split_rows = 0;
  ScriptedEngineOptions engine;
};

template <typename T>
T OneOf(std::mt19937_64& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

RunShape RandomShape(std::mt19937_64& random) {
  RunShape shape;
  shape.runner.threads = OneOf(random, {1, 3});
  shape.runner.batch_rows = OneOf<std::int64_t>(random, {1, 3, 1024});
  shape.runner.budget_bytes = OneOf<std::int64_t>(random, {1, 500, 1 << 28});
  shape.split_rows = OneOf<std::int64_t>(random, {1, 5, 4096});
  // Without room the engine still takes a row when it has none.
  shape.engine.max_requests = OneOf<std::int64_t>(random, {0, 1, 2, 3, 64});
  shape.engine.per_poll = OneOf<std::int64_t>(random, {0, 1, 2});
  shape.engine.order =
      OneOf(random, {FinishOrder::kSubmitted, FinishOrder::kReversed, FinishOrder::kShuffled});
  shape.engine.seed = random();
  shape.engine.answer = [](const Request& request) {
    return Reply(TestJob::PromptOf(request), request.random);
  };
  return shape;
}

TEST(RunnerGenerateTest, TheSameRowsComeOutOfARandomJobForAnyShapeOfTheRun) {
  const TempFolder folder;
  std::mt19937_64 random(7);
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const Plan plan = RandomPlan(seed);
    const Outcome expected = Expected(plan);
    const auto job = TestJob::Make(folder.path(), Rows(plan), Steps(plan));
    ASSERT_TRUE(job.ok()) << job.status() << Steps(plan);
    for (int run = 0; run < 3; ++run) {
      SCOPED_TRACE(fmt::format("job {}, run {}", seed, run));
      const RunShape shape = RandomShape(random);
      const auto first = MakeScriptedEngine(shape.engine);
      const auto second = MakeScriptedEngine(shape.engine);
      RecordedRows rows;
      (*job)->cut_answers = 0;
      const Status status = (*job)->Run(
          shape.runner, shape.split_rows, {{"first", first.get()}, {"second", second.get()}}, rows
      );
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(rows.rows(), expected.rows);
      ASSERT_EQ((*job)->cut_answers, expected.cut_answers);
    }
  }
}

Result<std::unique_ptr<TestJob>> TwoSteps(const std::string& folder, int rows) {
  Plan plan{false, false, false, true, true, 1, {}};
  plan.rows.assign(static_cast<std::size_t>(rows), 'w');
  return TestJob::Make(folder, Rows(plan), Steps(plan));
}

ScriptedEngineOptions Echo() {
  ScriptedEngineOptions options;
  options.answer = [](const Request& request) {
    Completion completion;
    completion.text = TestJob::PromptOf(request);
    return completion;
  };
  return options;
}

TEST(RunnerGenerateTest, EmptySplitsAndNoRowsAtAllEnd) {
  const TempFolder folder;
  for (const int count : {0, 3}) {
    const auto job = TwoSteps(folder.path(), count);
    ASSERT_TRUE(job.ok()) << job.status();
    (*job)->more_splits = {Split(), Split()};
    const auto engine = MakeScriptedEngine(Echo());
    RecordedRows rows;
    const Status status =
        (*job)->Run({}, 2, {{"first", engine.get()}, {"second", engine.get()}}, rows);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(rows.rows().size(), static_cast<std::size_t>(count));
  }
}

TEST(RunnerGenerateTest, EachRequestHasTheNameOfItsSample) {
  const TempFolder folder;
  const Plan plan{false, false, false, false, false, 2, {'w', 'w'}};
  const auto job = TestJob::Make(folder.path(), Rows(plan), Steps(plan));
  ASSERT_TRUE(job.ok()) << job.status();
  ScriptedEngineOptions options;
  std::set<std::string> names;
  options.answer = [&](const Request& request) {
    names.insert(request.name);
    return Completion();
  };
  const auto engine = MakeScriptedEngine(options);
  RecordedRows rows;
  EXPECT_TRUE((*job)->Run({}, 2, {{"first", engine.get()}}, rows).ok());
  EXPECT_EQ(names, (std::set<std::string>{"0:1 a 0", "0:1 a 1", "0:2 a 0", "0:2 a 1"}));
}

TEST(RunnerGenerateTest, WithoutARowNoEngineIsAskedFor) {
  const TempFolder folder;
  const auto job = TwoSteps(folder.path(), 0);
  ASSERT_TRUE(job.ok()) << job.status();
  (*job)->more_splits = {Split()};
  RecordedRows rows;
  EXPECT_TRUE((*job)->Run({}, 2, {}, rows).ok());
}

// An engine that counts how often it is polled.
class PolledEngine final : public Engine {
 public:
  explicit PolledEngine(ScriptedEngineOptions options)
      : base_(MakeScriptedEngine(std::move(options))) {}
  Room room() const override { return base_->room(); }
  void Submit(Request request) override { base_->Submit(std::move(request)); }
  void Cancel(RequestId id) override { base_->Cancel(id); }
  Result<std::vector<Completion>> Poll(Deadline deadline, std::stop_token stop) override {
    ++polls;
    return base_->Poll(deadline, std::move(stop));
  }
  EngineStats stats() const override { return base_->stats(); }

  std::atomic<int> polls = 0;

 private:
  const std::unique_ptr<Engine> base_;
};

// Holds rows between two generate steps until the second step's engine has been polled some more;
// gives up if nobody polls it any more.
class Gate final : public Operator {
 public:
  explicit Gate(const PolledEngine& engine) : engine_(engine) {}
  Status Process(RowBatch batch, Emitter& out) const override {
    is_holding = true;
    is_holding.notify_all();
    const int before = engine_.polls;
    for (int i = 0; i < 2'000'000 && engine_.polls < before + 3; ++i) std::this_thread::yield();
    return out.Emit(std::move(batch));
  }

  mutable std::atomic<bool> is_holding = false;

 private:
  const PolledEngine& engine_;
};

// Passes the first row on. The second is skipped, but not before the gate holds the first.
class Straggler final : public Operator {
 public:
  explicit Straggler(const Gate& gate) : gate_(gate) {}
  Status Process(RowBatch batch, Emitter& out) const override {
    if (batch.rows.front().index == 0) return out.Emit(std::move(batch));
    gate_.is_holding.wait(false);
    return out.Leave({RowStatus::kSkipped, std::move(batch), {}});
  }

 private:
  const Gate& gate_;
};

TEST(RunnerGenerateTest, ARowBetweenTwoStepsKeepsTheSecondOneOpen) {
  const TempFolder folder;
  const auto job = TwoSteps(folder.path(), 2);
  ASSERT_TRUE(job.ok()) << job.status();
  const auto first = MakeScriptedEngine(Echo());
  PolledEngine second(Echo());
  auto gate = std::make_unique<Gate>(second);
  auto& segments = (*job)->bound.segments;
  segments[0].operators.push_back(std::make_unique<Straggler>(*gate));
  segments[1].operators.insert(segments[1].operators.begin(), std::move(gate));
  RunnerOptions options;
  options.batch_rows = 1;
  RecordedRows rows;
  const Status status =
      (*job)->Run(options, 2, {{"first", first.get()}, {"second", &second}}, rows);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(rows.rows().size(), 2U);
}

// Keeps answers as bytes, as a row log does.
class KeptResults final : public ResultStore {
 public:
  KnownResult Find(const ResultKey& key) override {
    const auto found = answers_.find({key.row.record, key.request.low});
    if (found == answers_.end()) return {};
    return {DecodeCompletion(found->second).ValueOrDie(), {}};
  }
  Status Keep(const ResultKey& key, const Completion& answer) override {
    answers_[{key.row.record, key.request.low}] = EncodeCompletion(answer);
    return Status::OK();
  }
  Status Blame(const ResultKey&, const Completion&) override { return Status::OK(); }
  Status KeepPrefix(const ResultKey&, const std::vector<std::int32_t>&) override {
    return Status::OK();
  }

 private:
  std::map<std::pair<std::int64_t, std::uint64_t>, std::string> answers_;
};

TEST(RunnerGenerateTest, ScoresBecomeColumnsThatLaterStepsRead) {
  const TempFolder folder;
  const std::string most(128, 'x');
  const std::string rows =
      "{\"id\": 1, \"text\": \"abc\"}\n{\"id\": 2, \"text\": \"b\"}\n"
      "{\"id\": 3, \"text\": \"\"}\n{\"id\": 4, \"text\": \"zzzz\"}\n"
      "{\"id\": 5, \"text\": \"eee\"}\n{\"id\": 6}\n{\"id\": 7, \"text\": \"" +
      most + "\"}\n{\"id\": 8, \"text\": \"" + most + "y\"}\n";
  const auto steps = [](const char* more) {
    return fmt::format(
        "  - score: {{model: first, text: \"{{{{ text }}}}\", as: q, per_token: true{}}}\n"
        "  - filter: \"{{{{ q|default(0) > -3 }}}}\"\n"
        "  - set: {{n: \"{{{{ q_logprobs|length }}}}\"}}\n"
        "  - select: [q, q_meta, q_logprobs, n]\n",
        more
    );
  };
  ScriptedEngineOptions script;
  script.answer = [](const Request& request) {
    EXPECT_TRUE(request.score);
    const std::string text = TestJob::PromptOf(request);
    Completion completion;
    for (std::size_t i = 1; i < text.size(); ++i) {
      completion.scores.push_back(text[0] == 'z' ? -4 : -static_cast<float>(i) / 2);
    }
    if (text.size() > 100) completion.scores.assign(text.size() - 1, -1);
    if (text[0] == 'e') {
      completion.reason = FinishReason::kError;
      completion.error_code = "bad_logits";
    }
    return completion;
  };
  const auto job = TestJob::Make(folder.path(), rows, steps(""));
  ASSERT_TRUE(job.ok()) << job.status();
  KeptResults results;
  (*job)->results = &results;
  RecordedRows found;
  const auto engine = MakeScriptedEngine(script);
  ASSERT_TRUE((*job)->Run({}, 3, {{"first", engine.get()}}, found).ok());
  std::map<std::int64_t, std::string> expected = {
      {1, R"(ok -0.75 {"tokens":2,"truncated":false} [-0.5,-1.0] "2")"},
      {2, R"(ok null {"tokens":0,"truncated":false} [] "0")"},
      {3, R"(ok null {"tokens":0,"truncated":false} [] "0")"},
      {4, "skipped"},
      {5, "error q bad_logits"},
      {6, "error q undefined_value"},
      {8, "error q context_overflow"}
  };
  std::map<std::int64_t, std::string> rest = found.rows();
  EXPECT_TRUE(rest.extract(7).mapped().starts_with(R"(ok -1.0 {"tokens":127,"truncated":false})"));
  EXPECT_EQ(rest, expected);

  // What was scored is kept, and not asked for again.
  ScriptedEngineOptions second;
  second.answer = [&](const Request& request) {
    EXPECT_EQ(TestJob::PromptOf(request)[0], 'e');
    return script.answer(request);
  };
  RecordedRows again;
  const auto other = MakeScriptedEngine(second);
  ASSERT_TRUE((*job)->Run({}, 3, {{"first", other.get()}}, again).ok());
  EXPECT_EQ(again.rows(), found.rows());

  const auto cuts = TestJob::Make(folder.path(), rows, steps(", on_overflow: {truncate: [text]}"));
  ASSERT_TRUE(cuts.ok()) << cuts.status();
  RecordedRows cut;
  ASSERT_TRUE((*cuts)->Run({}, 3, {{"first", engine.get()}}, cut).ok());
  EXPECT_TRUE(cut.rows().at(8).starts_with(R"(ok -1.0 {"tokens":127,"truncated":true})"));
}

}  // namespace
}  // namespace millstream
