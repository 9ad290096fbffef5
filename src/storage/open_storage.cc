// SPDX-License-Identifier: Apache-2.0
// The storage of the program: each path goes to the disk or to the bucket it names.
#include <map>
#include <string_view>
#include <utility>

#include "base/mutex.h"
#include "storage/object_storage.h"
#include "storage/path.h"
#include "storage/s3_store.h"
#include "storage/storage.h"

namespace millstream {
namespace {

class AnyStorage final : public Storage {
 public:
  explicit AnyStorage(std::stop_token stop) : stop_(std::move(stop)) {}

  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Create(path);
  }
  Result<std::unique_ptr<AppendFile>> CreateAppend(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->CreateAppend(path);
  }
  // All files of a call lie in one place: an output and its state.
  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override {
    if (files.empty()) return std::vector<bool>();
    MS_ASSIGN_OR_RETURN(Storage * storage, At(files.front().to));
    return storage->PublishAll(files);
  }
  Result<std::string> Version(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Version(path);
  }
  Status Exchange(const std::string& from, const std::string& to, const std::string& version)
      override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(to));
    return storage->Exchange(from, to, version);
  }
  Status Sync(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Sync(path);
  }
  Result<std::shared_ptr<arrow::io::RandomAccessFile>> Open(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Open(path);
  }
  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Read(path, max_bytes);
  }
  Result<std::vector<StoredFile>> List(const std::string& folder) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(folder));
    return storage->List(folder);
  }
  Status Remove(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Remove(path);
  }
  Result<std::unique_ptr<StorageLock>> Lock(const std::string& path, std::string_view holder)
      override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Lock(path, holder);
  }
  Result<std::optional<std::string>> LockHolder(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->LockHolder(path);
  }
  Result<DiskSpace> Space(const std::string& folder) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(folder));
    return storage->Space(folder);
  }
  Status Reserve(const std::string& path, std::uint64_t bytes) override {
    MS_ASSIGN_OR_RETURN(Storage * storage, At(path));
    return storage->Reserve(path, bytes);
  }

 private:
  // The disk is there from the start, a bucket from its first path.
  Result<Storage*> At(const std::string& path) {
    if (!IsObjectPath(path)) return disk_.get();
    MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(path));
    MutexLock lock(mutex_);
    std::unique_ptr<Storage>& bucket = buckets_[s3.bucket];
    if (bucket == nullptr) {
      S3Options options;
      options.bucket = s3.bucket;
      MS_ASSIGN_OR_RETURN(options.aws, LoadAwsSettings(options.environment));
      MS_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, OpenS3(std::move(options)));
      ObjectStorageOptions storage;
      storage.root = "s3://" + s3.bucket + "/";
      storage.stop = stop_;
      bucket = MakeObjectStorage(std::move(store), std::move(storage));
    }
    return bucket.get();
  }

  const std::stop_token stop_;
  const std::unique_ptr<Storage> disk_ = MakeLocalStorage();
  Mutex mutex_;
  std::map<std::string, std::unique_ptr<Storage>> buckets_ MS_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Storage> MakeStorage(std::stop_token stop) {
  return std::make_unique<AnyStorage>(std::move(stop));
}

}  // namespace millstream
