// SPDX-License-Identifier: Apache-2.0
// Storage on a disk: which calls, in which order, make a file durable.
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <utility>

#include "arrow/memory_pool.h"
#include "arrow/util/io_util.h"
#include "base/mutex.h"
#include "storage/disk.h"
#include "storage/path.h"
#include "storage/range_file.h"
#include "storage/storage.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

// An open file, closed at the end of its scope.
class OpenFile {
 public:
  explicit OpenFile(Disk& disk) : disk_(disk) {}
  ~OpenFile() { (void)Close(); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  Status Open(const std::string& path, Disk::Mode mode) {
    path_ = path;
    const int error = disk_.Open(path, mode, &file_);
    return error == 0 ? Status::OK()
                      : FileError(error, mode == Disk::Mode::kRead ? "open" : "create", path);
  }
  Status Write(std::string_view bytes) {
    while (!bytes.empty()) {
      std::size_t written = 0;
      const int error = disk_.Write(file_, bytes, &written);
      if (error == EINTR) continue;
      if (error != 0 || written == 0) return FileError(error == 0 ? EIO : error, "write", path_);
      bytes.remove_prefix(written);
    }
    return Status::OK();
  }
  Status Sync() {
    int error = disk_.Sync(file_);
    while (error == EINTR) error = disk_.Sync(file_);
    return error == 0 ? Status::OK() : FileError(error, "sync", path_);
  }
  // Fewer bytes than fit only at the end of the file.
  Result<std::size_t> ReadAt(std::uint64_t at, std::span<char> buffer) const {
    std::size_t have = 0;
    while (have < buffer.size()) {
      std::size_t got = 0;
      const int error = disk_.Read(file_, at + have, buffer.subspan(have), &got);
      if (error == EINTR) continue;
      if (error != 0) return FileError(error, "read", path_);
      if (got == 0) break;
      have += got;
    }
    return have;
  }
  Result<std::uint64_t> Size() const {
    std::uint64_t size = 0;
    const int error = disk_.Size(file_, &size);
    if (error != 0) return FileError(error, "read", path_);
    return size;
  }
  void StartSync() { disk_.StartSync(file_); }
  // Idempotent. EINTR closes the file as well.
  Status Close() {
    if (!is_open()) return Status::OK();
    const int error = disk_.Close(std::exchange(file_, kNone));
    return error == 0 || error == EINTR ? Status::OK() : FileError(error, "close", path_);
  }
  bool is_open() const { return file_ != kNone; }
  Disk::File get() const { return file_; }
  const std::string& path() const { return path_; }

 private:
  static constexpr Disk::File kNone = -1;
  Disk& disk_;
  Disk::File file_ = kNone;
  std::string path_;
};

class DiskOutputStream final : public arrow::io::OutputStream {
 public:
  explicit DiskOutputStream(std::unique_ptr<OpenFile> file) : file_(std::move(file)) {}
  ~DiskOutputStream() override = default;

  using arrow::io::OutputStream::Write;
  Status Write(const void* data, std::int64_t num_bytes) override {
    MS_RETURN_NOT_OK(
        file_->Write({static_cast<const char*>(data), static_cast<std::size_t>(num_bytes)})
    );
    position_ += num_bytes;
    return Status::OK();
  }
  Status Close() override { return file_->Close(); }
  bool closed() const override { return !file_->is_open(); }
  Result<std::int64_t> Tell() const override { return position_; }

 private:
  const std::unique_ptr<OpenFile> file_;
  std::int64_t position_ = 0;
};

class DiskInputFile final : public RangeFile {
 public:
  static Result<std::shared_ptr<DiskInputFile>> Open(
      const std::shared_ptr<Disk>& disk, const std::string& path
  ) {
    auto file = std::make_unique<OpenFile>(*disk);
    MS_RETURN_NOT_OK(file->Open(path, Disk::Mode::kRead));
    MS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
    return std::make_shared<DiskInputFile>(disk, std::move(file), size);
  }
  DiskInputFile(std::shared_ptr<Disk> disk, std::unique_ptr<OpenFile> file, std::uint64_t size)
      : RangeFile(file->path(), size, arrow::default_memory_pool()),
        disk_(std::move(disk)),
        file_(std::move(file)) {}
  ~DiskInputFile() override = default;

 private:
  Status ReadRange(std::uint64_t at, std::uint64_t num_bytes, void* out) override {
    MS_ASSIGN_OR_RETURN(
        const std::size_t got, file_->ReadAt(at, {static_cast<char*>(out), num_bytes})
    );
    return got == num_bytes ? Status::OK()
                            : Status::IOError("cannot read ", name(), ": it became shorter");
  }

  const std::shared_ptr<Disk> disk_;  // outlives the file
  const std::unique_ptr<OpenFile> file_;
};

class DiskLock final : public StorageLock {
 public:
  DiskLock(Disk& disk, Disk::File file) : disk_(disk), file_(file) {}
  ~DiskLock() override { (void)disk_.Close(file_); }
  DiskLock(const DiskLock&) = delete;
  DiskLock& operator=(const DiskLock&) = delete;

 private:
  Disk& disk_;
  const Disk::File file_;
};

class DiskStorage final : public Storage {
 public:
  explicit DiskStorage(std::shared_ptr<Disk> disk) : owner_(std::move(disk)), disk_(*owner_) {}

  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    MS_ASSIGN_OR_RETURN(auto file, OpenToWrite(path, Disk::Mode::kTruncate));
    return std::make_shared<DiskOutputStream>(std::move(file));
  }

  Result<std::unique_ptr<AppendFile>> CreateAppend(const std::string& path) override {
    auto file = OpenToWrite(path, Disk::Mode::kCreate);
    if (!file.ok() && IsTaken(file.status())) {
      return Status::AlreadyExists(path, " exists already");
    }
    MS_RETURN_NOT_OK(file.status());
    return std::make_unique<GrowingFile>(*this, *std::move(file));
  }

  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override {
    MS_RETURN_NOT_OK(SyncFiles(files));
    std::set<std::string> folders;
    std::vector<bool> moved;
    for (const Publication& file : files) {
      const std::string folder = ParentOf(file.to);
      int error = disk_.RenameWithoutReplacing(file.from, file.to);
      if (error == ENOENT) {  // most likely the folder
        MS_RETURN_NOT_OK(MakeFolders(folder));
        error = disk_.RenameWithoutReplacing(file.from, file.to);
      }
      if (error != 0 && error != EEXIST) return FileError(error, "publish", file.to);
      moved.push_back(error == 0);
      folders.insert(folder);
    }
    for (const std::string& folder : folders) MS_RETURN_NOT_OK(SyncEntries(folder));
    return moved;
  }

  Result<std::string> Version(const std::string& /*path*/) override { return std::string(); }
  Status Exchange(
      const std::string& from, const std::string& to, const std::string& /*version*/
  ) override {
    MS_RETURN_NOT_OK(SyncOne(from));
    const int error = disk_.Exchange(from, to);
    if (error != 0) return FileError(error, "replace", to);
    MS_RETURN_NOT_OK(SyncEntries(ParentOf(to)));
    return SyncEntries(ParentOf(from));
  }

  Status Sync(const std::string& path) override {
    MS_RETURN_NOT_OK(SyncOne(path));
    return SyncEntries(ParentOf(path));
  }

  Result<std::shared_ptr<arrow::io::RandomAccessFile>> Open(const std::string& path) override {
    return DiskInputFile::Open(owner_, path);
  }

  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override {
    OpenFile file(disk_);
    MS_RETURN_NOT_OK(file.Open(path, Disk::Mode::kRead));
    MS_ASSIGN_OR_RETURN(const std::uint64_t size, file.Size());
    if (size > max_bytes) {
      return Status::Invalid(path, " is larger than expected: ", size, " bytes, limit ", max_bytes);
    }
    std::string bytes(size, '\0');
    MS_ASSIGN_OR_RETURN(const std::size_t have, file.ReadAt(0, bytes));
    bytes.resize(have);
    return bytes;
  }

  Result<std::vector<StoredFile>> List(const std::string& folder) override {
    std::vector<StoredFile> files;
    const int error = disk_.List(folder, &files);
    if (error != 0 && error != ENOENT) return FileError(error, "list", folder);
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
      return a.name < b.name;
    });
    return files;
  }

  Status Remove(const std::string& path) override {
    {
      MutexLock lock(mutex_);
      std::erase_if(durable_folders_, [&](const std::string& folder) {
        return folder == path || folder.starts_with(path + "/");
      });
    }
    int error = disk_.Remove(path);
    // A driver that was taken for dead may still put files there.
    for (int again = 0; error == ENOTEMPTY && again < kTimesMax; ++again)
      error = disk_.Remove(path);
    return error == 0 || error == ENOENT ? Status::OK() : FileError(error, "remove", path);
  }

  Result<std::unique_ptr<StorageLock>> Lock(const std::string& path, std::string_view holder)
      override {
    Disk::File file = 0;
    int error = disk_.Lock(path, holder, &file);
    if (error == ENOENT) {
      MS_RETURN_NOT_OK(MakeFolders(ParentOf(path)));
      error = disk_.Lock(path, holder, &file);
    }
    if (error == 0) return std::make_unique<DiskLock>(disk_, file);
    if (error != EWOULDBLOCK) return FileError(error, "lock", path);
    const auto other = Read(path, kMaxHolderBytes);  // if its name is gone, it is held all the same
    return Status::AlreadyExists(other.ok() ? *other : std::string());
  }

  Result<std::optional<std::string>> LockHolder(const std::string& path) override {
    bool locked = false;
    const int error = disk_.IsLocked(path, &locked);
    if (error == ENOENT || (error == 0 && !locked)) return std::optional<std::string>();
    if (error != 0) return FileError(error, "look at the lock", path);
    MS_ASSIGN_OR_RETURN(std::string holder, Read(path, kMaxHolderBytes));
    return std::optional(std::move(holder));
  }

  Result<DiskSpace> Space(const std::string& folder) override {
    DiskSpace space;
    const int error = disk_.Space(folder, &space);
    return error == 0 ? Result<DiskSpace>(std::move(space))
                      : FileError(error, "look at the space of", folder);
  }

  Status Reserve(const std::string& path, std::uint64_t bytes) override {
    const auto reserve = [&] {
      int error = disk_.Reserve(path, bytes);
      while (error == EINTR) error = disk_.Reserve(path, bytes);
      return error;
    };
    int error = reserve();
    if (error == ENOENT) {
      MS_RETURN_NOT_OK(MakeFolders(ParentOf(path)));
      error = reserve();
    }
    return error == 0 ? Status::OK() : FileError(error, "reserve space in", path);
  }

 private:
  static constexpr std::uint64_t kMaxHolderBytes = 4096;
  static constexpr int kTimesMax = 100;  // that others come between

  class GrowingFile final : public AppendFile {
   public:
    GrowingFile(DiskStorage& storage, std::unique_ptr<OpenFile> file)
        : storage_(storage), file_(std::move(file)) {}

    Status Append(std::string_view bytes) override {
      MS_RETURN_NOT_OK(failure());
      return Keep(file_->Write(bytes));
    }
    Status Sync() override {
      MS_RETURN_NOT_OK(failure());
      Status synced = file_->Sync();
      if (synced.ok() && !has_name_) {
        synced = storage_.SyncEntries(ParentOf(file_->path()));
        has_name_ = synced.ok();
      }
      return Keep(std::move(synced));
    }

   private:
    Status failure() {
      MutexLock lock(mutex_);
      return failed_;
    }
    Status Keep(Status status) {
      MutexLock lock(mutex_);
      if (!status.ok()) failed_ = status;
      return status;
    }

    DiskStorage& storage_;
    const std::unique_ptr<OpenFile> file_;
    bool has_name_ = false;  // that survives a power cut
    Mutex mutex_;
    Status failed_ MS_GUARDED_BY(mutex_) = Status::OK();  // the file is lost
  };

  static bool IsTaken(const Status& status) {
    return arrow::internal::ErrnoFromStatus(status) == EEXIST;
  }

  Result<std::unique_ptr<OpenFile>> OpenToWrite(const std::string& path, Disk::Mode mode) {
    auto file = std::make_unique<OpenFile>(disk_);
    Status opened = file->Open(path, mode);
    // A driver may remove what a worker that it took for dead is about to write to.
    for (int again = 0; IsNotFound(opened) && again < kTimesMax; ++again) {
      MS_RETURN_NOT_OK(MakeFolders(ParentOf(path)));
      opened = file->Open(path, mode);
    }
    MS_RETURN_NOT_OK(opened);
    return file;
  }

  Status SyncFiles(std::span<const Publication> files) {
    if (files.size() > 1) {
      for (const Publication& publication : files) {
        OpenFile file(disk_);
        MS_RETURN_NOT_OK(file.Open(publication.from, Disk::Mode::kRead));
        file.StartSync();  // Sync() tells if it failed
      }
    }
    for (const Publication& publication : files) MS_RETURN_NOT_OK(SyncOne(publication.from));
    return Status::OK();
  }

  Status SyncOne(const std::string& path) {
    OpenFile file(disk_);
    MS_RETURN_NOT_OK(file.Open(path, Disk::Mode::kRead));
    return file.Sync();
  }

  // Makes the entries of a folder survive a power cut, and the folder itself: whoever made it may
  // have died before it was synced.
  Status SyncEntries(const std::string& folder) {
    std::vector<std::string> unknown;
    {
      MutexLock lock(mutex_);
      for (std::string path = folder; path != ParentOf(path) && !durable_folders_.contains(path);
           path = ParentOf(path)) {
        unknown.push_back(path);
      }
    }
    for (auto path = unknown.rbegin(); path != unknown.rend(); ++path) {
      const Status synced = SyncOne(ParentOf(*path));
      // Where we may not read, we made no folder.
      if (!synced.ok() && arrow::internal::ErrnoFromStatus(synced) != EACCES) return synced;
      MutexLock lock(mutex_);
      durable_folders_.insert(*path);
    }
    return SyncOne(folder);
  }

  Status MakeFolders(const std::string& folder) {
    fs::path made;
    for (const fs::path& component : fs::path(folder)) {
      made /= component;
      const std::string path = made.string();
      const int error =
          disk_.MakeFolder(path, /*owner_only=*/component.extension() == ".millstream");
      if (error == 0) continue;
      std::vector<StoredFile> ignored;  // a folder may be there, and we not allowed to make it
      if (error != EEXIST && disk_.List(path, &ignored) != 0) {
        return FileError(error, "create the folder", path);
      }
    }
    return Status::OK();
  }

  const std::shared_ptr<Disk> owner_;
  Disk& disk_;
  Mutex mutex_;
  std::set<std::string> durable_folders_ MS_GUARDED_BY(mutex_);  // that survive a power cut
};

}  // namespace

std::unique_ptr<Storage> MakeDiskStorage(std::shared_ptr<Disk> disk) {
  return std::make_unique<DiskStorage>(std::move(disk));
}

std::unique_ptr<Storage> MakeLocalStorage() {
  return MakeDiskStorage(MakeLocalDisk());
}

}  // namespace millstream
