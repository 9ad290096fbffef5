// SPDX-License-Identifier: Apache-2.0
// A storage that fails when told, and a folder that goes away: for the tests of whoever writes
// files.

#pragma once

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "storage/storage.h"

namespace millstream {

/// What happens to an operation that is to fail.
enum class Fault {
  kFails,         // it does nothing; a write keeps the first half of its bytes
  kFailsLate,     // it is done, and yet reports the failure
  kFailsForGood,  // as kFails, and so do all later ones: what a crash at this place leaves behind
};

/// Passes operations on to another storage and lets the nth fail. Counts every call, each file of a
/// PublishAll, and each write and close of the streams it made, so that a test can let each
/// operation of a run fail in turn. Thread-safe, as the storage it wraps is.
class FaultyStorage final : public Storage {
 public:
  /// `base` must outlive it.
  explicit FaultyStorage(Storage& base) : base_(base) {}

  /// Lets operation number `n` from now, counted from 1, fail with `error`.
  void FailAt(int n, int error = EIO, Fault fault = Fault::kFails) {
    MutexLock lock(counter_->mutex);
    counter_->fail_at = counter_->count + n;
    counter_->error = error;
    counter_->fault = fault;
  }
  /// Calls `act` before operation number `n` from now.
  void CallAt(int n, std::function<void()> act) {
    MutexLock lock(counter_->mutex);
    counter_->call_at = counter_->count + n;
    counter_->act = std::move(act);
  }
  /// From now on says that a disk has so much space, whatever the other storage says.
  void SetSpace(DiskSpace space) {
    MutexLock lock(counter_->mutex);
    counter_->space = std::move(space);
  }
  /// From now on no listing shows files of this name, as one that is older than they are.
  void HideFromListings(std::string name) {
    MutexLock lock(counter_->mutex);
    counter_->hidden = std::move(name);
  }
  int num_operations() const {
    MutexLock lock(counter_->mutex);
    return counter_->count;
  }
  /// Whether the failure asked for has happened.
  bool has_failed() const {
    MutexLock lock(counter_->mutex);
    return counter_->fail_at > 0 && counter_->count >= counter_->fail_at;
  }

  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    const auto create = [&]() -> Result<std::shared_ptr<arrow::io::OutputStream>> {
      MS_ASSIGN_OR_RETURN(auto stream, base_.Create(path));
      return std::make_shared<FaultyStream>(std::move(stream), counter_, path);
    };
    return counter_->Count("create", path, create);
  }
  Result<std::unique_ptr<AppendFile>> CreateAppend(const std::string& path) override {
    const auto create = [&]() -> Result<std::unique_ptr<AppendFile>> {
      MS_ASSIGN_OR_RETURN(auto file, base_.CreateAppend(path));
      return std::make_unique<FaultyAppendFile>(std::move(file), counter_, path);
    };
    return counter_->Count("create", path, create);
  }
  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override {
    std::vector<bool> moved;
    for (const Publication& file : files) {
      MS_ASSIGN_OR_RETURN(const std::vector<bool> one, counter_->Count("publish", file.to, [&] {
        return base_.PublishAll({&file, 1});
      }));
      moved.push_back(one.front());
    }
    return moved;
  }
  Result<std::string> Version(const std::string& path) override { return base_.Version(path); }
  Status Exchange(const std::string& from, const std::string& to, const std::string& version)
      override {
    return counter_->Count("replace", to, [&] { return base_.Exchange(from, to, version); });
  }
  Status Sync(const std::string& path) override {
    return counter_->Count("sync", path, [&] { return base_.Sync(path); });
  }
  Result<std::shared_ptr<arrow::io::RandomAccessFile>> Open(const std::string& path) override {
    return counter_->Count("open", path, [&] { return base_.Open(path); });
  }
  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override {
    return counter_->Count("read", path, [&] { return base_.Read(path, max_bytes); });
  }
  Result<std::vector<StoredFile>> List(const std::string& folder) override {
    return counter_->Count("list", folder, [&]() -> Result<std::vector<StoredFile>> {
      MS_ASSIGN_OR_RETURN(std::vector<StoredFile> files, base_.List(folder));
      MutexLock lock(counter_->mutex);
      std::erase_if(files, [&](const StoredFile& file) { return file.name == counter_->hidden; });
      return files;
    });
  }
  Status Remove(const std::string& path) override {
    return counter_->Count("remove", path, [&] { return base_.Remove(path); });
  }
  Result<std::unique_ptr<StorageLock>> Lock(const std::string& path, std::string_view holder)
      override {
    return counter_->Count("lock", path, [&] { return base_.Lock(path, holder); });
  }
  Result<std::optional<std::string>> LockHolder(const std::string& path) override {
    return counter_->Count("look at the lock", path, [&] { return base_.LockHolder(path); });
  }
  Result<DiskSpace> Space(const std::string& folder) override {
    return counter_->Count("look at the space of", folder, [&]() -> Result<DiskSpace> {
      {
        MutexLock lock(counter_->mutex);
        if (counter_->space) return *counter_->space;
      }
      return base_.Space(folder);
    });
  }
  Status Reserve(const std::string& path, std::uint64_t bytes) override {
    return counter_->Count("reserve space in", path, [&] { return base_.Reserve(path, bytes); });
  }

 private:
  struct Counter {
    mutable Mutex mutex;
    int count MS_GUARDED_BY(mutex) = 0;
    int fail_at MS_GUARDED_BY(mutex) = 0;
    int error MS_GUARDED_BY(mutex) = 0;
    Fault fault MS_GUARDED_BY(mutex) = Fault::kFails;
    int call_at MS_GUARDED_BY(mutex) = 0;
    std::function<void()> act MS_GUARDED_BY(mutex);
    std::optional<DiskSpace> space MS_GUARDED_BY(mutex);
    std::string hidden MS_GUARDED_BY(mutex);

    // Does an operation, or lets it fail.
    template <typename Operation>
    std::invoke_result_t<Operation> Count(
        const char* name, const std::string& path, Operation operation
    ) {
      std::function<void()> call;
      bool fails = false;
      bool is_done = true;
      int with = 0;
      {
        MutexLock lock(mutex);
        ++count;
        if (count == call_at) call = act;
        fails =
            count == fail_at || (fault == Fault::kFailsForGood && fail_at > 0 && count > fail_at);
        is_done = !fails || fault == Fault::kFailsLate;
        with = error;
      }
      if (call) call();
      if (!fails) return operation();
      if (is_done) (void)operation();
      return FileError(with, name, path);
    }
  };

  class FaultyStream final : public arrow::io::OutputStream {
   public:
    FaultyStream(
        std::shared_ptr<arrow::io::OutputStream> base,
        std::shared_ptr<Counter> counter,
        std::string path
    )
        : base_(std::move(base)), counter_(std::move(counter)), path_(std::move(path)) {}

    using arrow::io::OutputStream::Write;
    Status Write(const void* data, std::int64_t num_bytes) override {
      bool is_written = false;
      const Status status = counter_->Count("write", path_, [&] {
        is_written = true;
        return base_->Write(data, num_bytes);
      });
      if (!is_written) (void)base_->Write(data, num_bytes / 2);
      return status;
    }
    Status Close() override {
      bool is_closed = false;
      const Status status = counter_->Count("close", path_, [&] {
        is_closed = true;
        return base_->Close();
      });
      if (!is_closed) (void)base_->Close();
      return status;
    }
    bool closed() const override { return base_->closed(); }
    Result<std::int64_t> Tell() const override { return base_->Tell(); }

   private:
    const std::shared_ptr<arrow::io::OutputStream> base_;
    const std::shared_ptr<Counter> counter_;
    const std::string path_;
  };

  class FaultyAppendFile final : public AppendFile {
   public:
    FaultyAppendFile(
        std::unique_ptr<AppendFile> base, std::shared_ptr<Counter> counter, std::string path
    )
        : base_(std::move(base)), counter_(std::move(counter)), path_(std::move(path)) {}

    Status Append(std::string_view bytes) override {
      bool is_written = false;
      const Status status = counter_->Count("write", path_, [&] {
        is_written = true;
        return base_->Append(bytes);
      });
      if (!is_written) (void)base_->Append(bytes.substr(0, bytes.size() / 2));
      return status;
    }
    Status Sync() override {
      return counter_->Count("sync", path_, [&] { return base_->Sync(); });
    }

   private:
    const std::unique_ptr<AppendFile> base_;
    const std::shared_ptr<Counter> counter_;
    const std::string path_;
  };

  Storage& base_;
  const std::shared_ptr<Counter> counter_ = std::make_shared<Counter>();
};

/// A fresh folder that is removed with all in it.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "millstream-XXXXXX").string();
    MS_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace millstream
