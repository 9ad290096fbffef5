// SPDX-License-Identifier: Apache-2.0
#include "storage/object_storage.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/torture.h"
#include "storage/simulated_store.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr std::uint64_t kManyBytes = 1 << 20;

Status WriteFile(Storage& storage, const std::string& path, std::string_view bytes) {
  MS_ASSIGN_OR_RETURN(const auto stream, storage.Create(path));
  MS_RETURN_NOT_OK(stream->Write(bytes));
  return stream->Close();
}

class ObjectStorageTest : public testing::Test {
 protected:
  std::unique_ptr<Storage> Open(bool probe = false) {
    ObjectStorageOptions options;
    options.root = "s3://b/";
    options.clock = clock_;
    options.memory_bytes_max = 8;
    options.probe = probe;
    return MakeObjectStorage(store_, options);
  }
  std::set<std::string> Keys() const {
    std::set<std::string> keys;
    for (const auto& [key, bytes] : store_->Objects()) keys.insert(key);
    return keys;
  }

  const std::shared_ptr<SimulatedClock> clock_ = std::make_shared<SimulatedClock>(1);
  const std::shared_ptr<SimulatedStore> store_ = std::make_shared<SimulatedStore>(clock_, 1);
  const std::unique_ptr<Storage> storage_ = Open();
};

TEST_F(ObjectStorageTest, AFileIsNotOnTheStoreBeforeItIsPublished) {
  const std::string bytes(1000, 'x');  // and a short one: in memory, and in a scratch file
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/out.millstream/tmp/a", bytes).ok());
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/out.millstream/tmp/b", "short").ok());
  EXPECT_TRUE(Keys().empty());
  EXPECT_EQ(storage_->Read("s3://b/out.millstream/tmp/a", kManyBytes).ValueOrDie(), bytes);
  const std::vector<Publication> files{
      {"s3://b/out.millstream/tmp/a", "s3://b/out/part-0"},
      {"s3://b/out.millstream/tmp/b", "s3://b/out/part-1"}
  };
  EXPECT_EQ(storage_->PublishAll(files).ValueOrDie(), (std::vector<bool>{true, true}));
  EXPECT_EQ(Keys(), (std::set<std::string>{"out/part-0", "out/part-1"}));
  EXPECT_EQ(storage_->Read("s3://b/out/part-0", kManyBytes).ValueOrDie(), bytes);
  EXPECT_TRUE(IsNotFound(storage_->Read("s3://b/out.millstream/tmp/a", kManyBytes).status()));
}

TEST_F(ObjectStorageTest, PublishNeverReplacesAndKeepsWhatWasNotMoved) {
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/1", "1").ok());
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/2", "2").ok());
  ASSERT_TRUE(storage_->Publish("s3://b/1", "s3://b/part").ok());
  EXPECT_TRUE(storage_->Publish("s3://b/2", "s3://b/part").IsAlreadyExists());
  EXPECT_EQ(storage_->Read("s3://b/part", kManyBytes).ValueOrDie(), "1");
  EXPECT_EQ(storage_->Read("s3://b/2", kManyBytes).ValueOrDie(), "2");
  EXPECT_FALSE(storage_->Publish("s3://b/none", "s3://b/other").ok());
}

TEST_F(ObjectStorageTest, ReadIsBoundedAndAMissingFileIsNotFound) {
  ASSERT_TRUE(PublishBytes(*storage_, "s3://b/big", "12345").ok());
  EXPECT_EQ(storage_->Read("s3://b/big", 5).ValueOrDie(), "12345");
  EXPECT_TRUE(storage_->Read("s3://b/big", 4).status().IsInvalid());
  EXPECT_TRUE(IsNotFound(storage_->Read("s3://b/none", 4).status()));
}

TEST_F(ObjectStorageTest, PathsAreOfOneBucketAndPlain) {
  for (const char* path : {"s3://c/x", "/local", "s3://b/a/../c", "s3://b/a//c", "s3://b/./c"}) {
    EXPECT_TRUE(storage_->Read(path, 10).status().IsInvalid()) << path;
  }
}

TEST_F(ObjectStorageTest, AnAppendedFileIsOneFileOfManyPieces) {
  auto file = storage_->CreateAppend("s3://b/state/journal-1").ValueOrDie();
  std::string all;
  for (int i = 0; i < 20; ++i) {
    const std::string record = fmt::format("{},", i);
    ASSERT_TRUE(file->Append(record.substr(0, 1)).ok());
    ASSERT_TRUE(file->Append(record.substr(1)).ok());
    ASSERT_TRUE(file->Sync().ok());
    all += record;
  }
  ASSERT_TRUE(file->Append("not synced").ok());
  EXPECT_EQ(storage_->Read("s3://b/state/journal-1", kManyBytes).ValueOrDie(), all);
  EXPECT_EQ(storage_->Read("s3://b/state/journal-1", all.size()).ValueOrDie(), all);
  EXPECT_TRUE(storage_->Read("s3://b/state/journal-1", all.size() - 1).status().IsInvalid());
  EXPECT_TRUE(storage_->CreateAppend("s3://b/state/journal-1").status().IsAlreadyExists());

  const auto files = storage_->List("s3://b/state").ValueOrDie();
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files[0].name, "journal-1");
  EXPECT_FALSE(files[0].is_folder);
  EXPECT_EQ(files[0].size_bytes, all.size());

  ASSERT_TRUE(store_->Delete("state/journal-1/00000005").ok());
  EXPECT_TRUE(IsConflict(storage_->Read("s3://b/state/journal-1", kManyBytes).status()));
  ASSERT_TRUE(storage_->Remove("s3://b/state/journal-1").ok());
  EXPECT_TRUE(Keys().empty());
}

TEST_F(ObjectStorageTest, ANameOfAWholeFileCannotBeAppendedTo) {
  ASSERT_TRUE(PublishBytes(*storage_, "s3://b/x", "1").ok());
  EXPECT_TRUE(storage_->CreateAppend("s3://b/x").status().IsAlreadyExists());
}

TEST_F(ObjectStorageTest, ListIsSortedAndShowsFoldersAcrossPages) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(PublishBytes(*storage_, "s3://b/d/f" + std::to_string(i), "12").ok());
    ASSERT_TRUE(PublishBytes(*storage_, "s3://b/d/e/" + std::to_string(i), "12").ok());
  }
  const auto files = storage_->List("s3://b/d/").ValueOrDie();
  ASSERT_EQ(files.size(), 21U);
  EXPECT_EQ(files[0].name, "e");
  EXPECT_TRUE(files[0].is_folder);
  EXPECT_EQ(files[1].name, "f0");
  EXPECT_EQ(files[1].size_bytes, 2U);
  EXPECT_TRUE(storage_->List("s3://b/none").ValueOrDie().empty());
  ASSERT_TRUE(storage_->Remove("s3://b/d").ok());
  EXPECT_TRUE(Keys().empty());
  EXPECT_TRUE(storage_->Remove("s3://b/d").ok());
  EXPECT_FALSE(storage_->Remove("s3://b/").ok());
}

TEST_F(ObjectStorageTest, ExchangeReplaces) {
  ASSERT_TRUE(PublishBytes(*storage_, "s3://b/success.json", "old").ok());
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/tmp", "new").ok());
  const std::string old = storage_->Version("s3://b/success.json").ValueOrDie();
  ASSERT_TRUE(storage_->Exchange("s3://b/tmp", "s3://b/success.json", old).ok());
  EXPECT_EQ(storage_->Read("s3://b/success.json", kManyBytes).ValueOrDie(), "new");
  EXPECT_TRUE(IsNotFound(storage_->Read("s3://b/tmp", kManyBytes).status()));
  EXPECT_TRUE(IsNotFound(storage_->Version("s3://b/none").status()));
}

TEST_F(ObjectStorageTest, ExchangeNeverReplacesWhatAnotherWroteMeanwhile) {
  const auto other = Open();
  ASSERT_TRUE(PublishBytes(*storage_, "s3://b/success.json", "old").ok());
  ASSERT_TRUE(WriteFile(*storage_, "s3://b/mine", "mine").ok());
  ASSERT_TRUE(WriteFile(*other, "s3://b/other", "other").ok());
  const std::string old = storage_->Version("s3://b/success.json").ValueOrDie();
  EXPECT_TRUE(other->Exchange("s3://b/other", "s3://b/success.json", old).ok());
  EXPECT_TRUE(IsConflict(storage_->Exchange("s3://b/mine", "s3://b/success.json", old)));
  EXPECT_EQ(storage_->Read("s3://b/success.json", kManyBytes).ValueOrDie(), "other");
}

TEST_F(ObjectStorageTest, SpaceHasNoEnd) {
  EXPECT_GT(storage_->Space("s3://b/x").ValueOrDie().free_bytes, std::uint64_t{1} << 60);
  EXPECT_TRUE(storage_->Reserve("s3://b/ballast", 1 << 20).ok());
  EXPECT_TRUE(Keys().empty());
}

TEST_F(ObjectStorageTest, AStoreThatIgnoresConditionsIsRefused) {
  EXPECT_TRUE(PublishBytes(*Open(/*probe=*/true), "s3://b/x", "1").ok());
  EXPECT_EQ(Keys(), std::set<std::string>{"x"});
  StoreFaults faults;
  faults.ignores_conditions = true;
  store_->SetFaults(faults);
  const auto storage = Open(/*probe=*/true);
  const Status status = PublishBytes(*storage, "s3://b/y", "1");
  EXPECT_TRUE(status.IsNotImplemented());
  EXPECT_NE(status.message().find("does not honour `If-None-Match: *`"), std::string::npos);
  EXPECT_TRUE(storage->CreateAppend("s3://b/journal").status().IsNotImplemented());
  EXPECT_TRUE(storage->Lock("s3://b/LOCK", "me").status().IsNotImplemented());
  EXPECT_EQ(Keys(), std::set<std::string>{"x"});
}

TEST_F(ObjectStorageTest, AnOutageIsWaitedForAndThenCanBeResumed) {
  ASSERT_TRUE(PublishBytes(*storage_, "s3://b/x", "1").ok());
  StoreFaults faults;
  faults.unavailable = 1;
  store_->SetFaults(faults);
  const milliseconds began = clock_->Now();
  const Status status = PublishBytes(*storage_, "s3://b/y", "1");
  EXPECT_TRUE(IsDiskTrouble(status));
  EXPECT_FALSE(IsDiskFull(status));
  EXPECT_NE(status.message().find("run the same command again"), std::string::npos) << status;
  EXPECT_GE(clock_->Now() - began, minutes(15));
  EXPECT_LT(clock_->Now() - began, minutes(16));
  // It comes back after ten minutes: nobody sees more than the wait.
  const milliseconds again = clock_->Now();
  clock_->OnWait([&] {
    if (clock_->Now() - again > minutes(10)) store_->SetFaults({});
  });
  EXPECT_TRUE(PublishBytes(*storage_, "s3://b/y", "1").ok());
}

TEST_F(ObjectStorageTest, AnAddressThatNeverAnsweredIsNotWaitedForLong) {
  StoreFaults faults;
  faults.unavailable = 1;
  store_->SetFaults(faults);
  EXPECT_TRUE(IsDiskTrouble(storage_->Read("s3://b/y", 10).status()));
  EXPECT_LT(clock_->Now(), minutes(2));
}

TEST_F(ObjectStorageTest, AStopEndsTheWaiting) {
  std::stop_source stop;
  ObjectStorageOptions options;
  options.root = "s3://b/";
  options.clock = clock_;
  options.stop = stop.get_token();
  const auto storage = MakeObjectStorage(store_, options);
  stop.request_stop();
  ASSERT_TRUE(PublishBytes(*storage, "s3://b/x", "1").ok());  // what works still works
  StoreFaults faults;
  faults.lost = 1;
  store_->SetFaults(faults);
  EXPECT_TRUE(IsDiskTrouble(PublishBytes(*storage, "s3://b/y", "1")));
  EXPECT_EQ(clock_->Now(), milliseconds(0));
}

TEST(RetryingStoreTest, RetriesBeyondTheBudgetAreSlow) {
  const auto clock = std::make_shared<SimulatedClock>(1);
  StoreFaults faults;
  faults.unavailable = 0.5;
  const auto store = std::make_shared<SimulatedStore>(clock, 1, faults);
  RetryingStore retrying(store, clock, {}, {});
  for (int i = 0; i < 2000; ++i) {
    EXPECT_TRUE(retrying.Put({fmt::format("k{}", i), "v", PutCondition::None(), {}}).ok());
  }
  const RetryStats stats = retrying.stats();
  EXPECT_EQ(stats.num_requests, 2000 + stats.num_retries);
  EXPECT_EQ(stats.num_requests, store->num_requests());
  const std::int64_t fast = stats.num_retries - stats.num_slow_retries;
  EXPECT_LE(fast, 20 + stats.num_requests / 10);
  EXPECT_GE(fast, 10 + stats.num_requests / 10);
}

TEST(RetryingStoreTest, APutWhoseEndWasNotHeardIsKnownByItsWriteId) {
  const auto clock = std::make_shared<SimulatedClock>(1);
  const auto store = std::make_shared<SimulatedStore>(clock, 1);
  RetryingStore retrying(store, clock, {}, {});
  StoreFaults faults;
  faults.ambiguous = 1;
  store->SetFaults(faults);
  clock->OnWait([&] { store->SetFaults({}); });
  const StoreReply mine = retrying.Put({"part", "mine", PutCondition::IfAbsent(), {}});
  EXPECT_TRUE(mine.ok());
  EXPECT_FALSE(mine.object.etag.empty());
  // The same bytes by another are another's.
  EXPECT_EQ(
      retrying.Put({"part", "mine", PutCondition::IfAbsent(), {}}).outcome,
      StoreOutcome::kConditionFailed
  );
}

// A clock for the thread that beats, moved by hand.
class HandClock final : public StoreClock {
 public:
  explicit HandClock(std::uint64_t seed) : random_(seed) {}
  milliseconds Now() override {
    MutexLock lock(mutex_);
    return now_;
  }
  bool Wait(milliseconds duration, std::stop_token stop) override {
    MutexLock lock(mutex_);
    const milliseconds until = now_ + duration;
    ++num_waits_;
    changed_.notify_all();
    changed_.wait(lock, stop, [&]() MS_REQUIRES(mutex_) { return now_ >= until; });
    return !stop.stop_requested();
  }
  std::uint64_t Random() override {
    MutexLock lock(mutex_);
    return random_();
  }
  // Moves on, and returns when the thread that waited waits again.
  void AdvanceOneBeat(milliseconds duration) {
    MutexLock lock(mutex_);
    changed_.wait(lock, [&]() MS_REQUIRES(mutex_) { return num_waits_ > num_beats_; });
    ++num_beats_;
    now_ += duration;
    changed_.notify_all();
    changed_.wait(lock, [&]() MS_REQUIRES(mutex_) { return num_waits_ > num_beats_; });
  }

 private:
  Mutex mutex_;
  std::condition_variable_any changed_;
  milliseconds now_ MS_GUARDED_BY(mutex_){0};
  std::mt19937_64 random_ MS_GUARDED_BY(mutex_);
  int num_waits_ MS_GUARDED_BY(mutex_) = 0;
  int num_beats_ MS_GUARDED_BY(mutex_) = 0;
};

class ObjectLockTest : public testing::Test {
 protected:
  // The storage of another process: its clock stands still while nobody moves it.
  std::unique_ptr<Storage> Open(std::shared_ptr<StoreClock> clock) {
    ObjectStorageOptions options;
    options.root = "s3://b/";
    options.clock = std::move(clock);
    options.probe = false;
    return MakeObjectStorage(store_, options);
  }
  Result<std::unique_ptr<StorageLock>> Lock(Storage& storage, std::string_view holder) {
    return storage.Lock("s3://b/state/LOCK", holder);
  }

  const std::shared_ptr<SimulatedClock> clock_ = std::make_shared<SimulatedClock>(1);
  const std::shared_ptr<SimulatedStore> store_ = std::make_shared<SimulatedStore>(clock_, 1);
  const std::shared_ptr<HandClock> hand_ = std::make_shared<HandClock>(1);
  const std::unique_ptr<Storage> one_ = Open(hand_);
  const std::unique_ptr<Storage> two_ = Open(std::make_shared<HandClock>(2));
};

TEST_F(ObjectLockTest, IsHeldUntilItsHolderLetsGo) {
  auto first = Lock(*one_, "pid 1");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Lock(*two_, "pid 2");
  EXPECT_TRUE(second.status().IsAlreadyExists());
  EXPECT_EQ(second.status().message(), "pid 1");
  first->reset();
  EXPECT_TRUE(Lock(*two_, "pid 2").ok());
}

TEST_F(ObjectLockTest, BeatsKeepIt) {
  const auto first = Lock(*one_, "pid 1");
  ASSERT_TRUE(first.ok());
  for (int i = 0; i < 20; ++i) {
    clock_->Advance(seconds(10));
    hand_->AdvanceOneBeat(seconds(10));
    ASSERT_TRUE(Lock(*two_, "pid 2").status().IsAlreadyExists()) << i;
  }
}

TEST_F(ObjectLockTest, ABeatWhoseEndWasNotHeardIsFound) {
  const auto first = Lock(*one_, "pid 1");
  ASSERT_TRUE(first.ok());
  for (int i = 0; i < 20; ++i) {
    StoreFaults faults;
    faults.ambiguous = i % 2;
    store_->SetFaults(faults);
    clock_->Advance(seconds(30));
    hand_->AdvanceOneBeat(seconds(10));
  }
  store_->SetFaults({});
  EXPECT_TRUE(Lock(*two_, "pid 2").status().IsAlreadyExists());
}

TEST_F(ObjectLockTest, OneThatWasNotWrittenForAMinuteIsTakenOver) {
  auto first = Lock(*one_, "pid 1");
  ASSERT_TRUE(first.ok());
  clock_->Advance(seconds(60));
  EXPECT_TRUE(Lock(*two_, "pid 2").status().IsAlreadyExists());
  clock_->Advance(seconds(1));
  const auto second = Lock(*two_, "pid 2");
  ASSERT_TRUE(second.ok());
  first->reset();  // wakes up and lets go: of nothing
  EXPECT_EQ(Lock(*one_, "pid 3").status().message(), "pid 2");
}

TEST_F(ObjectLockTest, OneOfADeadProcessOfThisMachineIsTakenOver) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);  // nobody has its number now
  {
    ASSERT_TRUE(Lock(*one_, "pid 1").ok());
  }
  std::string text = store_->Objects().at("state/LOCK");
  text = "held" + text.substr(4);
  const std::string mine = fmt::format(" {} ", getpid());
  ASSERT_NE(text.find(mine), text.npos);
  ASSERT_TRUE(store_->Put({"state/LOCK", text, PutCondition::None(), "x"}).ok());
  EXPECT_EQ(Lock(*two_, "pid 2").status().message(), "pid 1");
  text.replace(text.find(mine), mine.size(), fmt::format(" {} ", child));
  ASSERT_TRUE(store_->Put({"state/LOCK", text, PutCondition::None(), "x"}).ok());
  EXPECT_TRUE(Lock(*two_, "pid 2").ok());
}

TEST_F(ObjectLockTest, OneOfManyWhoTakeItOverGetsIt) {
  auto first = Lock(*one_, "pid 1");
  ASSERT_TRUE(first.ok());
  clock_->Advance(seconds(61));
  const auto three = Open(std::make_shared<HandClock>(3));
  Result<std::unique_ptr<StorageLock>> other = Status::Invalid("not tried");
  int request = 0;
  store_->OnRequest([&] {
    if (++request == 3) other = Lock(*three, "pid 3");  // between the look at it and the taking
  });
  const auto second = Lock(*two_, "pid 2");
  EXPECT_TRUE(other.ok());
  EXPECT_EQ(second.status().message(), "pid 3");
}

// Several writers, each with a storage of its own over one store, that publish the same parts with
// bytes of their own. Whenever one asks the store or waits, any other may go on: that makes zombies
// of those who wait long. Writers lose their answers, and puts come about long after.
class Fleet {
 public:
  static constexpr int kWriters = 4;
  static constexpr int kParts = 5;

  Fleet(std::uint64_t seed, const StoreFaults& faults)
      : random_(seed),
        clock_(std::make_shared<SimulatedClock>(seed)),
        store_(std::make_shared<SimulatedStore>(clock_, seed, faults)) {
    clock_->OnWait([this] { LetOthersGoOn(0.3); });
    store_->OnRequest([this] { LetOthersGoOn(0.2); });
    for (int i = 0; i < kWriters; ++i) {
      Writer writer;
      ObjectStorageOptions options;
      options.root = "s3://b/";
      options.clock = clock_;
      options.parallel = 1;
      options.probe = false;
      writer.storage = MakeObjectStorage(store_, options);
      for (int part = 0; part < kParts; ++part) writer.left.push_back(part);
      std::shuffle(writer.left.begin(), writer.left.end(), random_);
      writers_.push_back(std::move(writer));
    }
  }

  void Run() {
    bool is_done = false;
    while (!is_done) {
      is_done = true;
      for (int i = 0; i < kWriters; ++i) {
        if (writers_[Place(i)].left.empty()) continue;
        is_done = false;
        if (random_() % 2 == 0) GoOn(i);
      }
    }
    store_->Settle();
  }

  // What is wrong, or nothing.
  std::string Check() {
    if (!failures_.empty()) return failures_;
    for (const std::string& key : store_->Changed()) {
      if (!key.starts_with("LOCK")) return key + " was changed";
    }
    const auto objects = store_->Objects();
    for (int part = 0; part < kParts; ++part) {
      const std::string key = "out/part-" + std::to_string(part);
      const auto found = objects.find(key);
      if (found == objects.end()) return key + " is not there";
      if (winners_[key].size() != 1) {
        return fmt::format("{} has {} winners", key, winners_[key].size());
      }
      if (found->second != winners_[key].front()) return key + " is not its winner's";
    }
    for (const auto& [journal, synced] : journals_) {
      const auto read = writers_[0].storage->Read("s3://b/" + journal, kManyBytes);
      if (!read.ok()) return journal + ": " + read.status().ToString();
      if (*read != synced) return fmt::format("{} holds {}, not {}", journal, *read, synced);
    }
    return {};
  }

 private:
  struct Writer {
    std::unique_ptr<Storage> storage;
    std::vector<int> left;
    std::unique_ptr<AppendFile> journal;
    std::string journal_name;
    bool is_busy = false;  // in the middle of a step
  };

  static std::size_t Place(int i) { return static_cast<std::size_t>(i); }
  bool Chance(double probability) {
    return static_cast<double>(random_() >> 11) * 0x1.0p-53 < probability;
  }

  void LetOthersGoOn(double probability) {
    while (Chance(probability)) GoOn(static_cast<int>(random_() % kWriters));
  }

  // Takes the next step of a writer: its journal, or a part and a record of it.
  void GoOn(int number) {
    Writer& writer = writers_[Place(number)];
    if (writer.is_busy || writer.left.empty()) return;
    writer.is_busy = true;
    if (writer.journal == nullptr) {
      OpenJournal(writer);
    } else {
      const int part = writer.left.back();
      writer.left.pop_back();
      PublishPart(number, writer, part);
    }
    writer.is_busy = false;
  }

  // The first number that is free, as a ledger would take it.
  void OpenJournal(Writer& writer) {
    for (int number = 0;; ++number) {
      const std::string name = "state/journal-" + std::to_string(number);
      auto journal = writer.storage->CreateAppend("s3://b/" + name);
      if (journal.status().IsAlreadyExists()) continue;
      if (!journal.ok()) return Fail(journal.status());
      if (!journals_.emplace(name, "").second) failures_ = name + " has two writers";
      writer.journal = *std::move(journal);
      writer.journal_name = name;
      return;
    }
  }

  void PublishPart(int number, Writer& writer, int part) {
    const std::string name = "out/part-" + std::to_string(part);
    const std::string bytes = fmt::format("{} by {}", name, number);
    const std::string temporary = "s3://b/state/tmp/" + std::to_string(part);
    const Status written = WriteFile(*writer.storage, temporary, bytes);
    if (!written.ok()) return Fail(written);
    const Status published = writer.storage->Publish(temporary, "s3://b/" + name);
    if (published.ok()) {
      winners_[name].push_back(bytes);
    } else if (!published.IsAlreadyExists()) {
      return Fail(published);
    }
    (void)writer.journal->Append(bytes);
    const Status synced = writer.journal->Sync();
    if (!synced.ok()) return Fail(synced);
    journals_[writer.journal_name] += bytes;
  }

  void Fail(const Status& status) { failures_ += status.ToString() + "\n"; }

  std::mt19937_64 random_;
  const std::shared_ptr<SimulatedClock> clock_;
  const std::shared_ptr<SimulatedStore> store_;
  std::vector<Writer> writers_;
  std::map<std::string, std::vector<std::string>> winners_;
  std::map<std::string, std::string> journals_;  // what each must hold
  std::string failures_;
};

StoreFaults Chaos() {
  StoreFaults faults;
  faults.unavailable = 0.04;
  faults.ambiguous = 0.06;
  faults.delayed = 0.06;
  faults.lost = 0.03;
  faults.conflict = 0.02;
  return faults;
}

// Suite 2 of docs/reliability.md.
TEST(FleetTest, NoPartChangesAndEachHasOneWinner) {
  const std::uint64_t first = TortureSeed() << 32;
  const TortureClock clock(20'000);
  std::int64_t schedules = 0;
  for (; clock.GoesOn(schedules) && !HasFailure(); ++schedules) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(schedules);
    Fleet fleet(seed, Chaos());
    fleet.Run();
    EXPECT_EQ(fleet.Check(), "") << "schedule " << schedules << " of MS_TORTURE_SEED "
                                 << TortureSeed();
  }
  ReportTorture("store, many writers", TortureSeed(), "schedules", schedules, HasFailure() ? 1 : 0);
}

// The oracle sees what it is there for.
TEST(FleetTest, AStoreWithoutConditionsIsCaught) {
  StoreFaults faults = Chaos();
  faults.ignores_conditions = true;
  int caught = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Fleet fleet(seed, faults);
    fleet.Run();
    if (!fleet.Check().empty()) ++caught;
  }
  EXPECT_EQ(caught, 100);
}

}  // namespace
}  // namespace millstream
