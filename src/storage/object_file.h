// SPDX-License-Identifier: Apache-2.0
// Objects to read from: one version of each, in ranges, for Arrow's readers.

#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "arrow/type_fwd.h"
#include "base/mutex.h"
#include "base/status.h"
#include "storage/object_store.h"
#include "storage/range_file.h"

namespace millstream {

/// Every range is of the version `etag`, or the read fails with a Conflict.
class ObjectFile final : public RangeFile {
 public:
  /// `path` is what messages call it. Buffers come from `pool`.
  ObjectFile(
      std::shared_ptr<ObjectStore> store,
      StoredObject object,
      std::string path,
      arrow::MemoryPool* pool
  );

  /// Why a read failed, if one did: the store or the version, as opposed to what the bytes say,
  /// which a parser's own error would not tell apart.
  Status failure() const {
    MutexLock lock(mutex_);
    return failure_;
  }

 private:
  Status ReadRange(std::uint64_t at, std::uint64_t num_bytes, void* out) override;

  const std::shared_ptr<ObjectStore> store_;
  const StoredObject object_;
  mutable Mutex mutex_;
  Status failure_ MS_GUARDED_BY(mutex_) = Status::OK();
};

/// The store of the bucket of "s3://bucket/...", which sends failed requests again; one for each
/// bucket, for all readers of this process. Thread-safe.
Result<std::shared_ptr<ObjectStore>> StoreOf(const std::string& path);
/// Once `stop` is requested, the stores of StoreOf that do not answer are no longer waited for.
/// Call it before the first of them.
void StopWaitingForStores(std::stop_token stop);

/// Size and etag of "s3://bucket/key" as it is now. IsNotFound if there is none.
Result<StoredObject> StatObject(const std::string& path);
/// The objects whose paths begin with `path`, of any depth, sorted; each key is a whole path.
Result<std::vector<StoredObject>> ListObjects(const std::string& path);
/// Opens the version `etag` of an object.
Result<std::shared_ptr<ObjectFile>> OpenObject(
    const std::string& path,
    std::uint64_t size_bytes,
    const std::string& etag,
    arrow::MemoryPool* pool
);

}  // namespace millstream
