// SPDX-License-Identifier: Apache-2.0
// The runner with work that comes as it goes, and that is taken back: each row once all the same.
// What a run waits for in vain shows as this test's timeout.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "engine/scripted_engine.h"
#include "fmt/format.h"
#include "pipeline/testing.h"
#include "storage/testing.h"

namespace millstream {
namespace {

// Work whose pieces are divided while they are run: each time that it is asked something, by
// chance, the end of some piece is taken back and becomes one of its own. It is its run's sink as
// well, which tells it when it is over.
class DividedWork final : public WorkSource, public RowSink {
 public:
  DividedWork(const std::vector<Split>& splits, std::uint64_t seed, RowSink& sink)
      : splits_(splits), sink_(sink), random_(seed) {
    for (const Split& split : splits) Add(split.number, 0, split.num_rows);
  }

  Result<std::vector<Piece>> Next(int /*readers*/, std::stop_token stop) override {
    MutexLock lock(mutex_);
    changed_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) {
      return !waiting_.empty() || open_.empty();
    });
    if (waiting_.empty()) {
      if (open_.empty()) return std::vector<Piece>();
      return Status::Cancelled("stopped");
    }
    const Piece piece = waiting_.front();
    waiting_.erase(waiting_.begin());
    open_[piece.number] = {piece.split.number, piece.begin, piece.end};
    return std::vector<Piece>{piece};
  }
  std::int64_t EndOf(std::int64_t piece) const override {
    MutexLock lock(mutex_);
    return open_.at(piece).end;
  }
  bool Begin(const RowRef& row) override {
    MutexLock lock(mutex_);
    Divide();
    Open& open = open_.at(row.piece);
    if (row.index >= open.end) return false;
    EXPECT_GE(row.index, open.begun);
    open.begun = row.index + 1;
    return true;
  }
  Status Finish(FinishedRows rows) override {
    {
      MutexLock lock(mutex_);
      for (const RowRef& row : rows.batch.rows) EXPECT_LT(row.index, open_.at(row.piece).end);
    }
    return sink_.Finish(std::move(rows));
  }
  Status End(const Piece& piece) override {
    MutexLock lock(mutex_);
    EXPECT_EQ(open_.erase(piece.number), 1U);
    changed_.notify_all();
    return Status::OK();
  }
  std::int64_t num_pieces() const {
    MutexLock lock(mutex_);
    return num_pieces_;
  }

 private:
  struct Open {
    std::int64_t split = 0, begun = 0, end = 0;
  };

  void Add(std::int64_t split, std::int64_t begin, std::int64_t end) {
    waiting_.push_back({num_pieces_++, splits_[static_cast<std::size_t>(split)], begin, end});
    changed_.notify_all();
  }
  void Divide() MS_REQUIRES(mutex_) {
    if (random_() % 4 != 0) return;
    auto victim = open_.begin();
    std::advance(victim, random_() % open_.size());
    Open& open = victim->second;
    const std::int64_t left = open.end - open.begun;
    if (left == 0) return;
    const auto taken = 1 + static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(left));
    open.end -= taken;
    Add(open.split, open.end, open.end + taken);
  }

  const std::vector<Split>& splits_;
  RowSink& sink_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::mt19937_64 random_ MS_GUARDED_BY(mutex_);
  std::vector<Piece> waiting_ MS_GUARDED_BY(mutex_);
  std::map<std::int64_t, Open> open_ MS_GUARDED_BY(mutex_);
  std::int64_t num_pieces_ MS_GUARDED_BY(mutex_) = 0;
};

Result<std::unique_ptr<TestJob>> EchoTwice(const std::string& folder, int count) {
  std::string rows;
  for (int id = 1; id <= count; ++id) rows += fmt::format("{{\"id\": {}, \"text\": \"t\"}}\n", id);
  const std::string step =
      "  - generate: {{model: {}, raw_prompt: \"{{{{ {} }}}}\", add_special_tokens: false, as: {}, "
      "max_tokens: 8}}\n";
  return TestJob::Make(
      folder,
      rows,
      fmt::format(fmt::runtime(step), "first", "id", "a") +
          fmt::format(fmt::runtime(step), "second", "a", "b") + "  - select: [b]\n"
  );
}

std::map<std::int64_t, std::string> Expected(int count) {
  std::map<std::int64_t, std::string> rows;
  for (int id = 1; id <= count; ++id) rows[id] = fmt::format("ok \"<<{}>>\"", id);
  return rows;
}

// Answers each prompt in brackets, and notes how often it is asked.
struct Asked {
  ScriptedEngineOptions Options() {
    ScriptedEngineOptions options;
    options.answer = [this](const Request& request) {
      const std::string prompt = TestJob::PromptOf(request);
      ++prompts[prompt];
      Completion completion;
      completion.text = "<" + prompt + ">";
      return completion;
    };
    return options;
  }
  void ExpectEachOnce(int count) const {
    EXPECT_EQ(prompts.size(), static_cast<std::size_t>(count));
    for (const auto& [prompt, times] : prompts) EXPECT_EQ(times, 1) << prompt;
  }
  std::map<std::string, int> prompts;
};

TEST(RunnerWorkTest, RowsThatAreTakenBackAreRunOnceByWhoeverGetsThem) {
  constexpr int kRows = 60;
  const TempFolder folder;
  const auto job = EchoTwice(folder.path(), kRows);
  ASSERT_TRUE(job.ok()) << job.status();
  std::mt19937_64 random(11);
  std::int64_t most_pieces = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    Asked asked[2];
    std::unique_ptr<Engine> engines[2];
    for (int i = 0; i < 2; ++i) {
      ScriptedEngineOptions options = asked[i].Options();
      options.max_requests = static_cast<std::int64_t>(random() % 8);
      options.per_poll = static_cast<std::int64_t>(random() % 3);
      options.order = FinishOrder::kShuffled;
      options.seed = seed;
      engines[i] = MakeScriptedEngine(options);
    }
    RunnerOptions options;
    options.batch_rows = seed % 2 == 0 ? 4 : 1024;
    options.budget_bytes = seed % 3 == 0 ? 1 : 1 << 28;
    const std::vector<Split> splits = (*job)->Splits(seed % 5 == 0 ? 7 : kRows);
    RecordedRows rows;
    DividedWork work(splits, seed, rows);
    const Status status = (*job)->RunWork(
        options, work, {{"first", engines[0].get()}, {"second", engines[1].get()}}, work
    );
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(rows.rows(), Expected(kRows));
    for (const Asked& each : asked) each.ExpectEachOnce(kRows);
    most_pieces = std::max(most_pieces, work.num_pieces());
  }
  EXPECT_GT(most_pieces, 10);
}

// Gives a piece only when all rows of the pieces before have come out.
class WaitingWork final : public WorkSource, public RowSink {
 public:
  explicit WaitingWork(std::vector<Split> splits) : splits_(std::move(splits)) {}
  Result<std::vector<Piece>> Next(int /*readers*/, std::stop_token stop) override {
    MutexLock lock(mutex_);
    changed_.wait(lock, stop, [this]() MS_REQUIRES(mutex_) { return out_ == given_; });
    if (stop.stop_requested()) return Status::Cancelled("stopped");
    if (next_ == splits_.size()) {
      if (ends) return std::vector<Piece>();
      is_waiting = true;
      is_waiting.notify_all();
      changed_.wait(lock, stop, [] { return false; });
      return Status::Cancelled("stopped");
    }
    const Split& split = splits_[next_++];
    given_ += split.num_rows;
    return std::vector<Piece>{{split.number, split, 0, split.num_rows}};
  }
  std::int64_t EndOf(std::int64_t /*piece*/) const override { return 1 << 20; }
  bool Begin(const RowRef& /*row*/) override { return true; }
  Status Finish(FinishedRows rows) override {
    MutexLock lock(mutex_);
    out_ += rows.batch.num_rows();
    changed_.notify_all();
    return Status::OK();
  }
  std::int64_t out() const {
    MutexLock lock(mutex_);
    return out_;
  }

  bool ends = true;
  std::atomic<bool> is_waiting = false;  // for more than there is

 private:
  const std::vector<Split> splits_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::size_t next_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t given_ MS_GUARDED_BY(mutex_) = 0, out_ MS_GUARDED_BY(mutex_) = 0;
};

TEST(RunnerWorkTest, RowsComeOutWhileTheNextPieceIsNotThere) {
  constexpr int kRows = 20;
  const TempFolder folder;
  const auto job = EchoTwice(folder.path(), kRows);
  ASSERT_TRUE(job.ok()) << job.status();
  Asked asked[2];
  const auto first = MakeScriptedEngine(asked[0].Options());
  const auto second = MakeScriptedEngine(asked[1].Options());
  WaitingWork work((*job)->Splits(3));
  const Status status =
      (*job)->RunWork({}, work, {{"first", first.get()}, {"second", second.get()}}, work);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(work.out(), kRows);
}

TEST(RunnerWorkTest, AStopEndsARunThatWaitsForWork) {
  const TempFolder folder;
  for (const bool generates : {true, false}) {
    const auto job =
        generates
            ? EchoTwice(folder.path(), 4)
            : TestJob::Make(
                  folder.path(), "{\"id\": 1, \"text\": \"t\"}\n", "  - filter: \"{{ id > 0 }}\"\n"
              );
    ASSERT_TRUE(job.ok()) << job.status();
    Asked asked[2];
    const auto first = MakeScriptedEngine(asked[0].Options());
    const auto second = MakeScriptedEngine(asked[1].Options());
    WaitingWork work((*job)->Splits(4));
    work.ends = false;
    std::stop_source stop;
    std::thread stopper([&] {
      work.is_waiting.wait(false);
      stop.request_stop();
    });
    RunnerOptions options;
    options.threads = 3;  // of which one waits for work, and the others for it
    const Status status = (*job)->RunWork(
        options, work, {{"first", first.get()}, {"second", second.get()}}, work, stop.get_token()
    );
    stopper.join();
    EXPECT_TRUE(status.IsCancelled()) << status;
    EXPECT_EQ(work.out(), generates ? 4 : 1);
  }
}

}  // namespace
}  // namespace millstream
