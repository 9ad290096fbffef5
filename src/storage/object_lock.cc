// SPDX-License-Identifier: Apache-2.0
#include "storage/object_lock.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>

#include "storage/store_failure.h"

namespace millstream {
namespace {

constexpr std::uint64_t kLockBytesMax = 8192;
constexpr std::string_view kHeld = "held";
constexpr std::string_view kFree = "free";

// Names this boot of this machine, and the namespace in which its process numbers count.
std::string Machine() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code unknown;
  const auto numbers = std::filesystem::read_symlink("/proc/self/ns/pid", unknown);
  return boot.empty() || unknown ? "" : boot + "/" + numbers.string();
}

// What a lock's object holds: one line for us, then the holder's text. The number of the beat makes
// each writing differ: the tag of an object follows from its bytes.
struct LockText {
  std::string state, machine;
  int process = 0;
  std::string beat;
  std::string holder;

  std::string Encode() const {
    return fmt::format("{} {} {} {}\n{}", state, machine, process, beat, holder);
  }
  static LockText Decode(std::string_view bytes) {
    LockText text;
    const std::size_t end = bytes.find('\n');
    if (end == bytes.npos) return text;
    std::string line(bytes.substr(0, end));
    const std::size_t first = line.find(' ');
    const std::size_t second = line.find(' ', first == line.npos ? first : first + 1);
    text.state = line.substr(0, first);
    text.holder = std::string(bytes.substr(end + 1));
    if (second == line.npos) return text;
    text.machine = line.substr(first + 1, second - first - 1);
    text.process = std::atoi(line.c_str() + second);
    return text;
  }
  // Whether its holder was a process of this machine that is no more.
  bool IsDead() const {
    return process > 0 && !machine.empty() && machine == Machine() && kill(process, 0) != 0 &&
           errno == ESRCH;
  }
};

class ObjectLock final : public StorageLock {
 public:
  ObjectLock(
      std::shared_ptr<ObjectStore> store, std::string key, LockText text, ObjectLockOptions options
  )
      : store_(std::move(store)),
        key_(std::move(key)),
        id_(UniqueName(*options.clock)),
        text_(std::move(text)),
        options_(std::move(options)) {}
  ~ObjectLock() override {
    if (beating_.joinable()) {
      beating_.request_stop();
      beating_.join();
      text_.state = kFree;
      (void)Write();  // if it fails, the lock grows stale
    }
  }
  ObjectLock(const ObjectLock&) = delete;
  ObjectLock& operator=(const ObjectLock&) = delete;

  // Writes the lock for the first time.
  StoreReply Take(ObjectStore& retrying, PutCondition condition) {
    const std::string bytes = NextText();
    StoreReply reply = retrying.Put({key_, bytes, std::move(condition), id_});
    etag_ = reply.object.etag;
    return reply;
  }
  void StartBeating() {
    beating_ = std::jthread([this](std::stop_token stop) {
      while (options_.clock->Wait(options_.heartbeat, stop) && Write()) {
      }
    });
  }

 private:
  std::string NextText() {
    text_.beat = fmt::format("{}-{}", id_, num_writes_++);
    return text_.Encode();
  }

  // Returns false once the lock is another's. Anything else is left to the next beat.
  bool Write() {
    const std::string bytes = NextText();
    StoreReply reply = store_->Put({key_, bytes, PutCondition::IfMatch(etag_), id_});
    if (reply.outcome == StoreOutcome::kConditionFailed) {
      // Perhaps an earlier beat got there whose end we did not hear.
      const StoreReply stands = store_->Head(key_);
      if (stands.ok() && stands.object.write_id != id_) return false;
      if (!stands.ok()) return true;
      reply = store_->Put({key_, bytes, PutCondition::IfMatch(stands.object.etag), id_});
    }
    if (reply.ok()) etag_ = reply.object.etag;
    return reply.outcome != StoreOutcome::kNotFound;
  }

  const std::shared_ptr<ObjectStore> store_;
  const std::string key_;
  const std::string id_;
  LockText text_;
  const ObjectLockOptions options_;
  std::string etag_;
  std::int64_t num_writes_ = 0;
  std::jthread beating_;  // the only one to touch the above while it runs
};

// Who holds the lock that a store gave, if anyone still does.
std::optional<std::string> HolderIn(const StoreReply& stands, const ObjectLockOptions& options) {
  const LockText text = LockText::Decode(stands.bytes);
  const std::chrono::seconds age(stands.object.store_time_s - stands.object.modified_s);
  if (text.state == kFree || age > options.stale || text.IsDead()) return std::nullopt;
  return text.holder;
}

}  // namespace

Result<std::optional<std::string>> HolderOfLock(
    ObjectStore& retrying, const std::string& key, const ObjectLockOptions& options
) {
  const StoreReply stands = retrying.Get({key, kLockBytesMax, {}, {}});
  if (stands.outcome == StoreOutcome::kNotFound) return std::optional<std::string>();
  if (!stands.ok()) return StoreFailure(stands, "read the lock", key);
  return HolderIn(stands, options);
}

Result<std::unique_ptr<StorageLock>> LockObject(
    std::shared_ptr<ObjectStore> store,
    ObjectStore& retrying,
    const std::string& key,
    std::string_view holder,
    const ObjectLockOptions& options
) {
  LockText text;
  text.state = kHeld;
  text.machine = Machine();
  text.process = getpid();
  text.holder = std::string(holder);
  auto lock = std::make_unique<ObjectLock>(std::move(store), key, std::move(text), options);
  PutCondition condition = PutCondition::IfAbsent();
  constexpr int kTries = 10;  // each time another was faster, or let go just then
  for (int i = 0; i < kTries; ++i) {
    const StoreReply taken = lock->Take(retrying, condition);
    if (taken.ok()) {
      lock->StartBeating();
      return lock;
    }
    if (taken.outcome == StoreOutcome::kNotFound) {  // the one to take over went away
      condition = PutCondition::IfAbsent();
      continue;
    }
    if (taken.outcome != StoreOutcome::kConditionFailed) return StoreFailure(taken, "lock", key);
    const StoreReply stands = retrying.Get({key, kLockBytesMax, {}, {}});
    if (stands.outcome == StoreOutcome::kNotFound) continue;
    if (!stands.ok()) return StoreFailure(stands, "read the lock", key);
    if (const auto other = HolderIn(stands, options)) return Status::AlreadyExists(*other);
    condition = PutCondition::IfMatch(stands.object.etag);
  }
  return Status::AlreadyExists("others who take it at the same time");
}

}  // namespace millstream
