// SPDX-License-Identifier: Apache-2.0
#include "storage/object_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "base/task_scope.h"
#include "storage/object_file.h"
#include "storage/object_lock.h"
#include "storage/store_failure.h"
#include "storage/unpublished_file.h"

namespace millstream {
namespace {

constexpr std::uint64_t kPutBytesMax = std::uint64_t{5} << 30;  // what S3 takes in one request
constexpr std::uint64_t kPieceBytesMax = std::uint64_t{1} << 30;

std::string PieceKey(const std::string& key, std::int64_t number) {
  return fmt::format("{}/{:08}", key, number);
}

// The number of a piece, or 0 if it is none.
std::int64_t PieceNumber(std::string_view key, std::string_view prefix) {
  constexpr std::size_t kDigits = 8;
  const std::string_view name = key.substr(prefix.size());
  if (name.size() != kDigits || name.find_first_not_of("0123456789") != name.npos) return 0;
  return std::stoll(std::string(name));
}

class ObjectStorage final : public Storage {
 public:
  ObjectStorage(std::shared_ptr<ObjectStore> store, ObjectStorageOptions options)
      : options_(std::move(options)),
        direct_(std::move(store)),
        store_(
            std::make_shared<RetryingStore>(direct_, options_.clock, options_.retry, options_.stop)
        ) {}

  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    MS_RETURN_NOT_OK(KeyOf(path).status());
    auto file = std::make_shared<UnpublishedFile>(options_.memory_bytes_max);
    MutexLock lock(mutex_);
    unpublished_[path] = file;
    return StreamTo(std::move(file));
  }

  Result<std::unique_ptr<AppendFile>> CreateAppend(const std::string& path) override;
  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override;
  Result<std::string> Version(const std::string& path) override;
  Status Exchange(const std::string& from, const std::string& to, const std::string& version)
      override;

  // What stands on a store needs no syncing.
  Status Sync(const std::string& path) override { return KeyOf(path).status(); }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> Open(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
    const StoreReply stands = store_->Head(key);
    if (!stands.ok()) return StoreFailure(stands, "open", path);
    return std::make_shared<ObjectFile>(store_, stands.object, path, arrow::default_memory_pool());
  }
  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override;
  Result<std::vector<StoredFile>> List(const std::string& folder) override;
  Status Remove(const std::string& path) override;

  Result<std::unique_ptr<StorageLock>> Lock(const std::string& path, std::string_view holder)
      override {
    MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
    MS_RETURN_NOT_OK(Probe(key));
    return LockObject(
        direct_, *store_, key, holder, {options_.clock, options_.heartbeat, options_.lock_stale}
    );
  }

  Result<std::optional<std::string>> LockHolder(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
    return HolderOfLock(*store_, key, {options_.clock, options_.heartbeat, options_.lock_stale});
  }

  Result<DiskSpace> Space(const std::string& folder) override {
    MS_RETURN_NOT_OK(KeyOf(folder).status());
    DiskSpace endless;
    endless.free_bytes = endless.total_bytes = std::numeric_limits<std::uint64_t>::max();
    return endless;
  }
  Status Reserve(const std::string& path, std::uint64_t /*bytes*/) override {
    return KeyOf(path).status();
  }

 private:
  // Sends what is appended between two Sync() as one object.
  class PieceFile final : public AppendFile {
   public:
    PieceFile(ObjectStorage& storage, std::string path, std::string key)
        : storage_(storage), path_(std::move(path)), key_(std::move(key)) {}

    Status Append(std::string_view bytes) override {
      MutexLock lock(mutex_);
      MS_RETURN_NOT_OK(failed_);
      if (pending_.size() + bytes.size() > kPieceBytesMax) {
        return Status::CapacityError("too much was appended to ", path_, " without a sync");
      }
      pending_.append(bytes);
      return Status::OK();
    }
    Status Sync() override {
      std::string piece;
      {
        MutexLock lock(mutex_);
        MS_RETURN_NOT_OK(failed_);
        piece.swap(pending_);
      }
      if (piece.empty()) return Status::OK();
      const StoreReply reply =
          storage_.store_->Put({PieceKey(key_, ++num_pieces_), piece, PutCondition::IfAbsent(), {}}
          );
      MutexLock lock(mutex_);
      if (!reply.ok()) failed_ = StoreFailure(reply, "append to", path_);
      return failed_;
    }
    // The first piece is empty and takes the name.
    StoreReply TakeName() {
      return storage_.store_->Put({PieceKey(key_, ++num_pieces_), {}, PutCondition::IfAbsent(), {}}
      );
    }

   private:
    ObjectStorage& storage_;
    const std::string path_, key_;
    std::int64_t num_pieces_ = 0;
    Mutex mutex_;
    std::string pending_ MS_GUARDED_BY(mutex_);
    Status failed_ MS_GUARDED_BY(mutex_) = Status::OK();  // the file is lost
  };

  Result<std::string> KeyOf(const std::string& path) const {
    std::string_view key = path;
    if (path + '/' == options_.root) return std::string();
    if (!key.starts_with(options_.root)) {
      return Status::Invalid(path, " does not lie in ", options_.root);
    }
    key.remove_prefix(options_.root.size());
    while (key.ends_with('/')) key.remove_suffix(1);
    for (std::size_t begin = 0; begin <= key.size();) {
      const std::size_t end = std::min(key.find('/', begin), key.size());
      const std::string_view component = key.substr(begin, end - begin);
      if (component == "." || component == ".." || (component.empty() && !key.empty())) {
        return Status::Invalid(path, " is no path of an object store: it has an empty or dot part");
      }
      begin = end + 1;
    }
    return std::string(key);
  }

  std::shared_ptr<UnpublishedFile> Unpublished(const std::string& path) const {
    MutexLock lock(mutex_);
    const auto found = unpublished_.find(path);
    return found == unpublished_.end() ? nullptr : found->second;
  }

  Result<bool> PublishOne(const Publication& file);
  Result<StoredObject> PutFile(
      const UnpublishedFile& file, const std::string& to, PutCondition condition
  );
  // All pages of a listing.
  Result<StoreReply> ListAll(const std::string& prefix, bool by_folder);
  Result<std::string> ReadPieces(
      const std::string& path, const std::string& key, std::uint64_t max_bytes
  );
  Status Probe(const std::string& beside);
  Status ProbeOnce(const std::string& key);

  const ObjectStorageOptions options_;
  const std::shared_ptr<ObjectStore> direct_;
  const std::shared_ptr<RetryingStore> store_;

  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<UnpublishedFile>> unpublished_ MS_GUARDED_BY(mutex_);
  Mutex probe_mutex_;
  bool is_probed_ MS_GUARDED_BY(probe_mutex_) = false;
};

Result<std::unique_ptr<AppendFile>> ObjectStorage::CreateAppend(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
  MS_RETURN_NOT_OK(Probe(key));
  const StoreReply whole = store_->Head(key);
  if (whole.ok()) return Status::AlreadyExists(path, " exists already");
  if (whole.outcome != StoreOutcome::kNotFound) return StoreFailure(whole, "create", path);
  auto file = std::make_unique<PieceFile>(*this, path, key);
  const StoreReply taken = file->TakeName();
  if (taken.outcome == StoreOutcome::kConditionFailed) {
    return Status::AlreadyExists(path, " exists already");
  }
  if (!taken.ok()) return StoreFailure(taken, "create", path);
  return file;
}

Result<StoredObject> ObjectStorage::PutFile(
    const UnpublishedFile& file, const std::string& to, PutCondition condition
) {
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(to));
  if (file.size_bytes() > kPutBytesMax) {
    return Status::Invalid(
        "cannot publish ", to, ": an object store takes up to 5 GiB at once; make splits smaller"
    );
  }
  const bool replaces = condition.kind == PutCondition::Kind::kIfMatch;
  const StoreReply reply = store_->Put({key, file.bytes(), std::move(condition), {}});
  if (reply.ok()) return reply.object;
  if (reply.outcome == StoreOutcome::kConditionFailed && !replaces) {
    return Status::AlreadyExists(to, " exists already");
  }
  return StoreFailure(reply, replaces ? "replace" : "publish", to);
}

Result<bool> ObjectStorage::PublishOne(const Publication& file) {
  const std::shared_ptr<UnpublishedFile> unpublished = Unpublished(file.from);
  if (unpublished == nullptr) {
    return Status::NotImplemented(
        "cannot move ", file.from, " to ", file.to, ": an object store has no renames"
    );
  }
  MS_RETURN_NOT_OK(unpublished->Finish());
  const auto put = PutFile(*unpublished, file.to, PutCondition::IfAbsent());
  if (put.status().IsAlreadyExists()) return false;
  if (!put.ok()) return put.status();
  MutexLock lock(mutex_);
  unpublished_.erase(file.from);
  return true;
}

Result<std::vector<bool>> ObjectStorage::PublishAll(std::span<const Publication> files) {
  if (files.empty()) return std::vector<bool>();
  MS_ASSIGN_OR_RETURN(const std::string first, KeyOf(files.front().from));
  MS_RETURN_NOT_OK(Probe(first));
  std::vector<char> moved(files.size());  // each written by one thread
  std::atomic<std::size_t> next = 0;
  const auto work = [&](const std::stop_token& stop) -> Status {
    for (std::size_t i = next++; i < files.size() && !stop.stop_requested(); i = next++) {
      MS_ASSIGN_OR_RETURN(const bool is_moved, PublishOne(files[i]));
      moved[i] = is_moved ? 1 : 0;
    }
    return Status::OK();
  };
  if (files.size() == 1 || options_.parallel == 1) {
    MS_RETURN_NOT_OK(work({}));
  } else {
    TaskScope tasks;
    const auto threads = std::min(files.size(), static_cast<std::size_t>(options_.parallel));
    for (std::size_t i = 0; i < threads; ++i) tasks.Spawn(work);
    MS_RETURN_NOT_OK(tasks.Join());
  }
  return std::vector<bool>(moved.begin(), moved.end());
}

Result<std::string> ObjectStorage::Version(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
  StoreReply stands = store_->Head(key);
  if (!stands.ok()) return StoreFailure(stands, "replace", path);
  return std::move(stands.object.etag);
}

Status ObjectStorage::Exchange(
    const std::string& from, const std::string& to, const std::string& version
) {
  const std::shared_ptr<UnpublishedFile> file = Unpublished(from);
  if (file == nullptr) return FileError(ENOENT, "open", from);
  MS_RETURN_NOT_OK(file->Finish());
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(to));
  MS_RETURN_NOT_OK(Probe(key));
  MS_RETURN_NOT_OK(PutFile(*file, to, PutCondition::IfMatch(version)).status());
  MutexLock lock(mutex_);
  unpublished_.erase(from);
  return Status::OK();
}

Result<std::string> ObjectStorage::Read(const std::string& path, std::uint64_t max_bytes) {
  const auto too_large = [&](std::uint64_t size) {
    return Status::Invalid(path, " is larger than expected: ", size, " bytes, limit ", max_bytes);
  };
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
  if (const auto unpublished = Unpublished(path)) {
    MS_RETURN_NOT_OK(unpublished->Finish());
    if (unpublished->size_bytes() > max_bytes) return too_large(unpublished->size_bytes());
    return std::string(unpublished->bytes());
  }
  StoreReply reply = store_->Get({key, max_bytes, {}, {}});
  if (reply.ok()) return std::move(reply.bytes);
  if (reply.outcome == StoreOutcome::kNotFound) return ReadPieces(path, key, max_bytes);
  if (reply.object.size_bytes > max_bytes) return too_large(reply.object.size_bytes);
  return StoreFailure(reply, "read", path);
}

// Reads on beyond what the listing says: it may be older than the last piece. One that is missing
// before a later one is no torn tail, which could be passed over.
Result<std::string> ObjectStorage::ReadPieces(
    const std::string& path, const std::string& key, std::uint64_t max_bytes
) {
  MS_ASSIGN_OR_RETURN(const StoreReply listed, ListAll(key + "/", /*by_folder=*/false));
  std::int64_t last = 0;
  for (const StoredObject& object : listed.objects) {
    last = std::max(last, PieceNumber(object.key, key + "/"));
  }
  std::string bytes;
  for (std::int64_t number = 1;; ++number) {
    const std::string piece = PieceKey(key, number);
    StoreReply reply = store_->Get({piece, max_bytes - bytes.size(), {}, {}});
    if (reply.outcome == StoreOutcome::kNotFound) {
      if (number == 1 && last == 0) return StoreFailure(reply, "read", path);
      if (number > last) return bytes;
      return Conflict(
          options_.root + piece + " is missing, but later pieces of the file are there"
      );
    }
    if (!reply.ok() && bytes.size() + reply.object.size_bytes > max_bytes) {
      return Status::Invalid(path, " is larger than expected, limit ", max_bytes, " bytes");
    }
    if (!reply.ok()) return StoreFailure(reply, "read", path);
    bytes += reply.bytes;
  }
}

Result<StoreReply> ObjectStorage::ListAll(const std::string& prefix, bool by_folder) {
  StoreReply all;
  std::string page;
  do {
    StoreReply reply = store_->List({prefix, by_folder, page});
    if (!reply.ok()) return StoreFailure(reply, "list", options_.root + prefix);
    std::move(reply.objects.begin(), reply.objects.end(), std::back_inserter(all.objects));
    std::move(reply.folders.begin(), reply.folders.end(), std::back_inserter(all.folders));
    page = std::move(reply.next_page);
  } while (!page.empty());
  return all;
}

Result<std::vector<StoredFile>> ObjectStorage::List(const std::string& folder) {
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(folder));
  const std::string prefix = key.empty() ? "" : key + "/";
  MS_ASSIGN_OR_RETURN(const StoreReply listed, ListAll(prefix, /*by_folder=*/true));
  std::vector<StoredFile> files;
  for (const StoredObject& object : listed.objects) {
    const std::string name = object.key.substr(prefix.size());
    if (!name.empty()) files.push_back({name, object.size_bytes, false});  // "" marks a folder
  }
  for (const std::string& below : listed.folders) {
    StoredFile file;
    file.name = below.substr(prefix.size(), below.size() - prefix.size() - 1);
    MS_ASSIGN_OR_RETURN(const StoreReply pieces, ListAll(below, /*by_folder=*/true));
    file.is_folder = pieces.objects.empty() || PieceNumber(pieces.objects[0].key, below) != 1;
    if (!file.is_folder) {
      for (const StoredObject& piece : pieces.objects) file.size_bytes += piece.size_bytes;
    }
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  return files;
}

Status ObjectStorage::Remove(const std::string& path) {
  MS_ASSIGN_OR_RETURN(const std::string key, KeyOf(path));
  if (key.empty()) return Status::Invalid("a whole bucket is not removed: ", path);
  {
    MutexLock lock(mutex_);
    if (unpublished_.erase(path) > 0) return Status::OK();  // the store never saw it
    std::erase_if(unpublished_, [&](const auto& entry) {
      return entry.first.starts_with(path + "/");
    });
  }
  MS_ASSIGN_OR_RETURN(const StoreReply below, ListAll(key + "/", /*by_folder=*/false));
  std::vector<std::string> keys{key};
  for (const StoredObject& object : below.objects) keys.push_back(object.key);
  // Backwards: what is left of an appended file, if this ends here, is a beginning of it.
  std::reverse(keys.begin(), keys.end());
  for (const std::string& one : keys) {
    const StoreReply reply = store_->Delete(one);
    if (!reply.ok() && reply.outcome != StoreOutcome::kNotFound) {
      return StoreFailure(reply, "remove", options_.root + one);
    }
  }
  return Status::OK();
}

Status ObjectStorage::Probe(const std::string& beside) {
  MutexLock lock(probe_mutex_);
  if (is_probed_ || !options_.probe) return Status::OK();
  const std::size_t slash = beside.rfind('/');
  const std::string folder = slash == beside.npos ? "" : beside.substr(0, slash + 1);
  const std::string key = folder + ".millstream-probe-" + UniqueName(*options_.clock);
  const Status status = ProbeOnce(key);
  (void)store_->Delete(key);  // if it stays, it harms nobody
  is_probed_ = status.ok();
  return status;
}

// Shows that conditions are looked at, and that an object tells whose it is. That they are atomic
// cannot be seen from here.
Status ObjectStorage::ProbeOnce(const std::string& key) {
  const std::string path = options_.root + key;
  const auto refuse = [&](std::string_view what) {
    return Status::NotImplemented(
        options_.root,
        " cannot hold the output: this object store does not ",
        what,
        ", so two writers could overwrite each other's parts. Write to a store that does (Amazon "
        "S3 does), or to a local folder"
    );
  };
  const StoreReply first = store_->Put({key, "1", PutCondition::IfAbsent(), {}});
  if (!first.ok()) return StoreFailure(first, "write", path);
  const StoreReply second = store_->Put({key, "2", PutCondition::IfAbsent(), {}});
  if (second.ok()) return refuse("honour `If-None-Match: *` when an object is put");
  if (second.outcome != StoreOutcome::kConditionFailed) return StoreFailure(second, "write", path);
  const std::string id = UniqueName(*options_.clock);
  const StoreReply third = store_->Put({key, "3", PutCondition::IfMatch(first.object.etag), id});
  if (!third.ok()) return StoreFailure(third, "replace", path);
  const StoreReply fourth = store_->Put({key, "4", PutCondition::IfMatch(first.object.etag), {}});
  if (fourth.ok()) return refuse("honour `If-Match` when an object is put");
  if (fourth.outcome != StoreOutcome::kConditionFailed) return StoreFailure(fourth, "write", path);
  const StoreReply head = store_->Head(key);
  if (!head.ok()) return StoreFailure(head, "look at", path);
  if (head.object.write_id != id) return refuse("keep an object's metadata");
  return Status::OK();
}

}  // namespace

std::unique_ptr<Storage> MakeObjectStorage(
    std::shared_ptr<ObjectStore> store, ObjectStorageOptions options
) {
  MS_CHECK(options.root.ends_with('/'));
  return std::make_unique<ObjectStorage>(std::move(store), std::move(options));
}

}  // namespace millstream
