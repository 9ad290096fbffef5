// SPDX-License-Identifier: Apache-2.0
// A storage that fails when told, and a folder that goes away: for the tests of whoever writes
// files.

#pragma once

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "storage/storage.h"

namespace millstream {

/// Passes operations on to another storage and lets the nth fail. Counts every call, each file of a
/// PublishAll, and each write and close of the streams it made, so that a test can let each
/// operation of a run fail in turn. Thread-safe, as the storage it wraps is.
class FaultyStorage final : public Storage {
 public:
  /// `base` must outlive it.
  explicit FaultyStorage(Storage& base) : base_(base) {}

  /// Lets operation number `n` from now, counted from 1, fail with `error`. A write keeps the first
  /// half of its bytes.
  void FailAt(int n, int error = EIO) {
    counter_->fail_at = counter_->count + n;
    counter_->error = error;
  }
  int num_operations() const { return counter_->count; }
  /// Whether the failure asked for has happened.
  bool has_failed() const { return counter_->fail_at > 0 && counter_->count >= counter_->fail_at; }

  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    MS_RETURN_NOT_OK(counter_->Next("create", path));
    MS_ASSIGN_OR_RETURN(auto stream, base_.Create(path));
    return std::make_shared<FaultyStream>(std::move(stream), counter_, path);
  }
  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override {
    std::vector<bool> moved;
    for (const Publication& file : files) {
      MS_RETURN_NOT_OK(counter_->Next("publish", file.to));
      MS_ASSIGN_OR_RETURN(const std::vector<bool> one, base_.PublishAll({&file, 1}));
      moved.push_back(one.front());
    }
    return moved;
  }
  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override {
    MS_RETURN_NOT_OK(counter_->Next("read", path));
    return base_.Read(path, max_bytes);
  }
  Result<std::vector<StoredFile>> List(const std::string& folder) override {
    MS_RETURN_NOT_OK(counter_->Next("list", folder));
    return base_.List(folder);
  }
  Status Remove(const std::string& path) override {
    MS_RETURN_NOT_OK(counter_->Next("remove", path));
    return base_.Remove(path);
  }

 private:
  struct Counter {
    std::atomic<int> count = 0;
    int fail_at = 0;
    int error = 0;

    Status Next(const char* operation, const std::string& path) {
      return ++count == fail_at ? FileError(error, operation, path) : Status::OK();
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
      const Status status = counter_->Next("write", path_);
      if (!status.ok()) (void)base_->Write(data, num_bytes / 2);
      return status.ok() ? base_->Write(data, num_bytes) : status;
    }
    Status Close() override {
      const Status status = counter_->Next("close", path_);
      const Status closed = base_->Close();
      return status.ok() ? closed : status;
    }
    bool closed() const override { return base_->closed(); }
    Result<std::int64_t> Tell() const override { return base_->Tell(); }

   private:
    const std::shared_ptr<arrow::io::OutputStream> base_;
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
