// SPDX-License-Identifier: Apache-2.0
#include "storage/object_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "arrow/buffer.h"
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
    : store_(std::move(store)), object_(std::move(object)), path_(std::move(path)), pool_(pool) {
  set_mode(arrow::io::FileMode::READ);
}

Status ObjectFile::Close() {
  is_closed_ = true;
  return Status::OK();
}

Status ObjectFile::Seek(std::int64_t position) {
  if (position < 0) return Status::Invalid("a negative place in ", path_);
  position_ = position;
  return Status::OK();
}

Result<std::int64_t> ObjectFile::GetSize() {
  return static_cast<std::int64_t>(object_.size_bytes);
}

Result<std::int64_t> ObjectFile::Read(std::int64_t num_bytes, void* out) {
  MS_ASSIGN_OR_RETURN(const std::int64_t got, ReadAt(position_, num_bytes, out));
  position_ += got;
  return got;
}

Result<std::shared_ptr<arrow::Buffer>> ObjectFile::Read(std::int64_t num_bytes) {
  MS_ASSIGN_OR_RETURN(auto buffer, ReadAt(position_, num_bytes));
  position_ += buffer->size();
  return buffer;
}

Result<std::int64_t> ObjectFile::ReadAt(std::int64_t position, std::int64_t num_bytes, void* out) {
  if (position < 0 || num_bytes < 0) return Status::Invalid("a negative range of ", path_);
  const auto size = static_cast<std::int64_t>(object_.size_bytes);
  const std::int64_t wanted = std::min(num_bytes, std::max<std::int64_t>(size - position, 0));
  if (wanted == 0) return 0;
  const StoreReply reply = store_->Get(
      {object_.key,
       static_cast<std::uint64_t>(wanted),
       static_cast<std::uint64_t>(position),
       object_.etag}
  );
  Status failure = Status::OK();
  if (reply.outcome == StoreOutcome::kConditionFailed || reply.outcome == StoreOutcome::kNotFound) {
    failure = Conflict(
        "input file " + path_ +
        " was changed since the job was made: its output would mix two inputs"
    );
  } else if (!reply.ok()) {
    failure = StoreFailure(reply, "read", path_);
  } else if (reply.bytes.size() != static_cast<std::size_t>(wanted)) {
    failure = Status::IOError("cannot read ", path_, ": the store gave fewer bytes than there are");
  }
  if (!failure.ok()) {
    MutexLock lock(mutex_);
    failure_ = failure;
    return failure;
  }
  std::memcpy(out, reply.bytes.data(), reply.bytes.size());
  return wanted;
}

Result<std::shared_ptr<arrow::Buffer>> ObjectFile::ReadAt(
    std::int64_t position, std::int64_t num_bytes
) {
  const auto size = static_cast<std::int64_t>(object_.size_bytes);
  const std::int64_t left = std::clamp<std::int64_t>(size - position, 0, size);
  const std::int64_t wanted = std::clamp<std::int64_t>(num_bytes, 0, left);
  MS_ASSIGN_OR_RETURN(auto buffer, arrow::AllocateResizableBuffer(wanted, pool_));
  MS_ASSIGN_OR_RETURN(const std::int64_t got, ReadAt(position, wanted, buffer->mutable_data()));
  MS_RETURN_NOT_OK(buffer->Resize(got));
  return std::shared_ptr<arrow::Buffer>(std::move(buffer));
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
