// SPDX-License-Identifier: Apache-2.0
#include "storage/object_file.h"

#include <cstring>
#include <map>
#include <utility>

#include "storage/retrying_store.h"
#include "storage/s3_store.h"
#include "storage/store_failure.h"

namespace millstream {
namespace {

// What the readers of this process share.
struct Shared {
  Mutex mutex;
  std::map<std::string, std::shared_ptr<ObjectStore>> stores MS_GUARDED_BY(mutex);
  std::stop_token stop MS_GUARDED_BY(mutex);
};

Shared& TheShared() {
  static Shared shared;
  return shared;
}

}  // namespace

ObjectFile::ObjectFile(
    std::shared_ptr<ObjectStore> store,
    StoredObject object,
    std::string path,
    arrow::MemoryPool* pool
)
    : RangeFile(std::move(path), object.size_bytes, pool),
      store_(std::move(store)),
      object_(std::move(object)) {}

Status ObjectFile::ReadRange(std::uint64_t at, std::uint64_t num_bytes, void* out) {
  const StoreReply reply = store_->Get({object_.key, num_bytes, at, object_.etag});
  Status failure = Status::OK();
  if (reply.outcome == StoreOutcome::kConditionFailed || reply.outcome == StoreOutcome::kNotFound) {
    failure = Conflict(name() + " was changed: the version that is being read is no longer there");
  } else if (!reply.ok()) {
    failure = StoreFailure(reply, "read", name());
  } else if (reply.bytes.size() != num_bytes) {
    failure =
        Status::IOError("cannot read ", name(), ": the store gave fewer bytes than there are");
  } else {
    std::memcpy(out, reply.bytes.data(), reply.bytes.size());
  }
  if (!failure.ok()) {
    MutexLock lock(mutex_);
    failure_ = failure;
  }
  return failure;
}

Result<std::shared_ptr<ObjectStore>> StoreOf(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(path));
  Shared& shared = TheShared();
  MutexLock lock(shared.mutex);
  std::shared_ptr<ObjectStore>& store = shared.stores[s3.bucket];
  if (store == nullptr) {
    S3Options options;
    options.bucket = s3.bucket;
    MS_ASSIGN_OR_RETURN(options.aws, LoadAwsSettings(options.environment));
    MS_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> direct, OpenS3(std::move(options)));
    store = std::make_shared<RetryingStore>(
        std::move(direct), MakeSystemClock(), RetryPolicy(), shared.stop
    );
  }
  return store;
}

void StopWaitingForStores(std::stop_token stop) {
  MutexLock lock(TheShared().mutex);
  TheShared().stop = std::move(stop);
}

Result<StoredObject> StatObject(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(path));
  MS_ASSIGN_OR_RETURN(const auto store, StoreOf(path));
  const StoreReply reply = store->Head(s3.key);
  if (!reply.ok()) return StoreFailure(reply, "read", path);
  return reply.object;
}

Result<std::vector<StoredObject>> ListObjects(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const S3Path s3, ParseS3Path(path));
  MS_ASSIGN_OR_RETURN(const auto store, StoreOf(path));
  std::vector<StoredObject> objects;
  ListRequest request{s3.key, /*by_folder=*/false, ""};
  do {
    StoreReply reply = store->List(request);
    if (!reply.ok()) return StoreFailure(reply, "list", path);
    for (StoredObject& object : reply.objects) {
      object.key = "s3://" + s3.bucket + "/" + object.key;
      objects.push_back(std::move(object));
    }
    request.page = std::move(reply.next_page);
  } while (!request.page.empty());
  return objects;
}

Result<std::shared_ptr<ObjectFile>> OpenObject(
    const std::string& path,
    std::uint64_t size_bytes,
    const std::string& etag,
    arrow::MemoryPool* pool
) {
  MS_ASSIGN_OR_RETURN(S3Path s3, ParseS3Path(path));
  MS_ASSIGN_OR_RETURN(auto store, StoreOf(path));
  StoredObject object;
  object.key = std::move(s3.key);
  object.size_bytes = size_bytes;
  object.etag = etag;
  return std::make_shared<ObjectFile>(std::move(store), std::move(object), path, pool);
}

}  // namespace millstream
