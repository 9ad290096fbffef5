// SPDX-License-Identifier: Apache-2.0
// Uses S3 as Millstream does, for tests/python, which run a server and say by the environment where
// it is:
//
//   s3_driver exercise s3://bucket/folder ROUNDS SEED   works with files in several threads and
//                                                       compares all it reads with what it wrote
//   s3_driver race s3://bucket/folder WRITER            for each line of standard input publishes
//                                                       the part that it names; prints won or lost
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/task_scope.h"
#include "storage/object_storage.h"
#include "storage/s3_store.h"

namespace millstream {
namespace {

constexpr std::uint64_t kManyBytes = 64 << 20;

// A clock on which a second of waiting takes a millisecond.
class FastClock final : public StoreClock {
 public:
  std::chrono::milliseconds Now() override { return 1000 * system_->Now(); }
  bool Wait(std::chrono::milliseconds duration, std::stop_token stop) override {
    return system_->Wait(duration / 1000, std::move(stop));
  }
  std::uint64_t Random() override { return system_->Random(); }

 private:
  const std::shared_ptr<StoreClock> system_ = MakeSystemClock();
};

struct Place {
  std::string root;    // "s3://bucket/"
  std::string folder;  // "s3://bucket/folder"
  std::shared_ptr<ObjectStore> store;
  std::unique_ptr<Storage> storage;
};

Result<Place> Open(const std::string& folder) {
  MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(folder));
  S3Options options;
  options.bucket = s3.bucket;
  options.stall_timeout_s = 1;
  MS_ASSIGN_OR_RETURN(options.aws, LoadAwsSettings(options.environment));
  Place place;
  place.root = "s3://" + s3.bucket + "/";
  place.folder = folder;
  ObjectStorageOptions storage;
  storage.root = place.root;
  storage.clock = std::make_shared<FastClock>();
  storage.memory_bytes_max = 100'000;
  // Minutes of this clock pass while a request stalls.
  storage.retry.outage_max = std::chrono::hours(100);
  storage.retry.first_contact_max = std::chrono::hours(100);
  MS_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, OpenS3(std::move(options)));
  place.store =
      std::make_shared<RetryingStore>(store, storage.clock, storage.retry, std::stop_token());
  place.storage = MakeObjectStorage(std::move(store), std::move(storage));
  return place;
}

Status WriteFile(Storage& storage, const std::string& path, std::string_view bytes) {
  MS_ASSIGN_OR_RETURN(const auto stream, storage.Create(path));
  MS_RETURN_NOT_OK(stream->Write(bytes));
  return stream->Close();
}

// One thread's files, and what each must hold.
class Exercise {
 public:
  Exercise(Place& place, std::uint64_t seed)
      : place_(place), folder_(fmt::format("{}/{}", place.folder, seed)), random_(seed) {}

  Status Run(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      MS_RETURN_NOT_OK(Publish(i));
      MS_RETURN_NOT_OK(ReadOne());
      MS_RETURN_NOT_OK(ReadRange());
      if (i % 5 == 0) MS_RETURN_NOT_OK(Replace());
      if (i % 5 == 1) MS_RETURN_NOT_OK(Append(i));
      if (i % 10 == 2) MS_RETURN_NOT_OK(ListAll());
      if (i % 10 == 3) MS_RETURN_NOT_OK(RemoveOne());
    }
    return Status::OK();
  }

 private:
  std::string RandomBytes() {
    return RandomBytes(random_() % 2 == 0 ? random_() % 200 : random_() % 200'000);
  }
  std::string RandomBytes(std::size_t size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }
  auto Any() {
    return std::next(files_.begin(), static_cast<std::ptrdiff_t>(random_() % files_.size()));
  }
  Status Same(const std::string& path, std::string_view expected, std::string_view found) {
    if (expected == found) return Status::OK();
    return Status::Invalid("WRONG BYTES in ", path, ": ", found.size(), " for ", expected.size());
  }

  Status Publish(int number) {
    const std::string path = fmt::format("{}/parts/part {:06}+é", folder_, number);
    // One is so big that it goes to the server in many pieces.
    std::string bytes = number == 0 ? RandomBytes(5'000'000) : RandomBytes();
    const std::string temporary = fmt::format("{}/state/{}", folder_, number);
    MS_RETURN_NOT_OK(WriteFile(*place_.storage, temporary, bytes));
    MS_RETURN_NOT_OK(place_.storage->Publish(temporary, path));
    files_[path] = std::move(bytes);
    MS_RETURN_NOT_OK(WriteFile(*place_.storage, temporary, "another"));
    if (!place_.storage->Publish(temporary, path).IsAlreadyExists()) {
      return Status::Invalid(path, " was published twice");
    }
    return Status::OK();
  }
  Status ReadOne() {
    const auto file = Any();
    MS_ASSIGN_OR_RETURN(const std::string bytes, place_.storage->Read(file->first, kManyBytes));
    return Same(file->first, file->second, bytes);
  }
  Status ReadRange() {
    const auto file = Any();
    if (file->second.empty() || file->first.find("/parts/") == std::string::npos) {
      return Status::OK();
    }
    const std::string key = file->first.substr(place_.root.size());
    const StoreReply head = place_.store->Head(key);
    if (!head.ok()) return Status::IOError(head.reason);
    const std::uint64_t offset = random_() % file->second.size();
    const StoreReply got = place_.store->Get({key, 1000, offset, head.object.etag});
    if (!got.ok()) return Status::IOError(got.reason);
    MS_RETURN_NOT_OK(Same(file->first, file->second.substr(offset, 1000), got.bytes));
    const StoreReply other = place_.store->Get({key, 1000, offset, "\"another\""});
    if (other.outcome == StoreOutcome::kConditionFailed) return Status::OK();
    return Status::Invalid(key, " was read though its etag is another");
  }
  Status Replace() {
    const std::string path = folder_ + "/success.json";
    const std::string bytes = RandomBytes();
    if (files_.contains(path)) {
      MS_RETURN_NOT_OK(WriteFile(*place_.storage, path + ".tmp", bytes));
      MS_ASSIGN_OR_RETURN(const std::string version, place_.storage->Version(path));
      MS_RETURN_NOT_OK(place_.storage->Exchange(path + ".tmp", path, version));
      MS_ASSIGN_OR_RETURN(const std::string now, place_.storage->Read(path, kManyBytes));
      MS_RETURN_NOT_OK(Same(path, bytes, now));
    } else {
      MS_RETURN_NOT_OK(PublishBytes(*place_.storage, path, bytes));
    }
    files_[path] = bytes;
    return Status::OK();
  }
  Status Append(int number) {
    const std::string path = fmt::format("{}/journal-{}", folder_, number);
    MS_ASSIGN_OR_RETURN(const auto file, place_.storage->CreateAppend(path));
    std::string all;
    for (int i = 0; i < 4; ++i) {
      const std::string bytes = RandomBytes();
      MS_RETURN_NOT_OK(file->Append(bytes));
      MS_RETURN_NOT_OK(file->Sync());
      all += bytes;
    }
    MS_ASSIGN_OR_RETURN(const std::string bytes, place_.storage->Read(path, kManyBytes));
    files_[path] = all;
    return Same(path, all, bytes);
  }
  // A listing may be older than the last changes; it has nothing that was never there.
  Status ListAll() {
    MS_ASSIGN_OR_RETURN(const auto files, place_.storage->List(folder_ + "/parts"));
    for (const StoredFile& file : files) {
      const auto found = files_.find(folder_ + "/parts/" + file.name);
      if (found == files_.end() || found->second.size() != file.size_bytes) {
        return Status::Invalid("a listing shows ", file.name, " of ", file.size_bytes, " bytes");
      }
    }
    return Status::OK();
  }
  Status RemoveOne() {
    const auto file = Any();
    if (file->first.find("/journal-") == std::string::npos) return Status::OK();
    const std::string path = file->first;
    files_.erase(file);
    return place_.storage->Remove(path);
  }

  Place& place_;
  const std::string folder_;
  std::mt19937_64 random_;
  std::map<std::string, std::string> files_;
};

Status RunExercise(const std::string& folder, int rounds, std::uint64_t seed) {
  MS_ASSIGN_OR_RETURN(Place place, Open(folder));
  constexpr int kThreads = 8;
  TaskScope threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    threads.Spawn([&, i](const std::stop_token&) {
      return Exercise(place, seed + i).Run(rounds / kThreads);
    });
  }
  return threads.Join();
}

Status RunRace(const std::string& folder, const std::string& writer) {
  MS_ASSIGN_OR_RETURN(Place place, Open(folder));
  std::string part;
  while (std::getline(std::cin, part)) {
    const std::string temporary = fmt::format("{}/state/{}", folder, part);
    const std::string bytes = fmt::format("{} by {}", part, writer);
    MS_RETURN_NOT_OK(WriteFile(*place.storage, temporary, bytes));
    const Status status =
        place.storage->Publish(temporary, fmt::format("{}/parts/{}", folder, part));
    if (!status.ok() && !status.IsAlreadyExists()) return status;
    std::cout << (status.ok() ? "won\n" : "lost\n") << std::flush;
  }
  return Status::OK();
}

}  // namespace
}  // namespace millstream

int main(int count, char** values) {
  const std::vector<std::string> arguments(values, values + count);
  millstream::Status status = millstream::Status::Invalid("see the top of the driver's source");
  if (count == 5 && arguments[1] == "exercise") {
    status = millstream::RunExercise(
        arguments[2], std::atoi(values[3]), std::strtoull(values[4], nullptr, 10)
    );
  } else if (count == 4 && arguments[1] == "race") {
    status = millstream::RunRace(arguments[2], arguments[3]);
  }
  if (status.ok()) return 0;
  std::cerr << status.message() << '\n';
  return 1;
}
