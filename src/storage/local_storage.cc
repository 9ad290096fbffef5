// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "storage/storage.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { (void)Close(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }
  // Returns the errno, or 0. Idempotent.
  int Close() {
    const int fd = std::exchange(fd_, -1);
    return fd >= 0 && close(fd) != 0 ? errno : 0;
  }

 private:
  int fd_;
};

class LocalOutputStream final : public arrow::io::OutputStream {
 public:
  LocalOutputStream(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~LocalOutputStream() override = default;

  using arrow::io::OutputStream::Write;
  Status Write(const void* data, std::int64_t num_bytes) override {
    const char* next = static_cast<const char*>(data);
    while (num_bytes > 0) {
      const ssize_t written = write(fd_.get(), next, static_cast<std::size_t>(num_bytes));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileError(errno, "write", path_);
      next += written;
      num_bytes -= written;
      position_ += written;
    }
    return Status::OK();
  }
  Status Close() override {
    const int error = fd_.Close();
    return error == 0 ? Status::OK() : FileError(error, "close", path_);
  }
  bool closed() const override { return fd_.get() < 0; }
  Result<std::int64_t> Tell() const override { return position_; }

 private:
  FileDescriptor fd_;
  const std::string path_;
  std::int64_t position_ = 0;
};

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Starts writing a file back, so that several are on their way before the first is waited for.
Status StartSync(const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return FileError(errno, "open", path);
  (void)sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);  // Sync() tells if it failed
  return Status::OK();
}

Status Sync(const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return FileError(errno, "open", path);
  if (fsync(file.get()) != 0) return FileError(errno, "sync", path);
  return Status::OK();
}

Status MakeFolders(const std::string& folder) {
  constexpr mode_t kOwnerOnly = 0700;
  constexpr mode_t kByUmask = 0777;
  fs::path made;
  for (const fs::path& component : fs::path(folder)) {
    made /= component;
    const mode_t mode = component.extension() == ".millstream" ? kOwnerOnly : kByUmask;
    if (mkdir(made.c_str(), mode) == 0) {
      MS_RETURN_NOT_OK(Sync(ParentOf(made.string())));  // or a power cut takes it with all in it
      continue;
    }
    if (errno == EEXIST) continue;
    const int error = errno;
    std::error_code ignored;
    if (!fs::is_directory(made, ignored)) {
      return FileError(error, "create the folder", made.string());
    }
  }
  return Status::OK();
}

// Returns an errno, or 0.
int RenameWithoutReplacing(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != ENOSYS && errno != EINVAL) return errno;
  // A file system without it: a hard link does not replace anything either.
  if (link(from.c_str(), to.c_str()) != 0) return errno;
  return unlink(from.c_str()) == 0 ? 0 : errno;
}

class LocalStorage final : public Storage {
 public:
  Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) override {
    constexpr mode_t kByUmask = 0666;
    MS_RETURN_NOT_OK(MakeFolders(ParentOf(path)));
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kByUmask);
    if (fd < 0) return FileError(errno, "create", path);
    return std::make_shared<LocalOutputStream>(fd, path);
  }

  Result<std::vector<bool>> PublishAll(std::span<const Publication> files) override {
    std::set<std::string> folders;
    for (const Publication& file : files) folders.insert(ParentOf(file.to));
    for (const std::string& folder : folders) MS_RETURN_NOT_OK(MakeFolders(folder));
    for (const Publication& file : files) MS_RETURN_NOT_OK(StartSync(file.from));
    for (const Publication& file : files) MS_RETURN_NOT_OK(Sync(file.from));
    std::vector<bool> moved;
    for (const Publication& file : files) {
      const int error = RenameWithoutReplacing(file.from, file.to);
      if (error != 0 && error != EEXIST) return FileError(error, "publish", file.to);
      moved.push_back(error == 0);
    }
    for (const std::string& folder : folders) MS_RETURN_NOT_OK(Sync(folder));
    return moved;
  }

  Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) override {
    const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return FileError(errno, "open", path);
    struct stat info{};
    if (fstat(file.get(), &info) != 0) return FileError(errno, "read", path);
    const auto size = static_cast<std::uint64_t>(info.st_size);
    if (size > max_bytes) {
      return Status::Invalid(path, " is larger than expected: ", size, " bytes, limit ", max_bytes);
    }
    std::string bytes(size, '\0');
    std::size_t have = 0;
    while (have < bytes.size()) {
      const ssize_t got = read(file.get(), bytes.data() + have, bytes.size() - have);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileError(errno, "read", path);
      if (got == 0) break;
      have += static_cast<std::size_t>(got);
    }
    bytes.resize(have);
    return bytes;
  }

  Result<std::vector<StoredFile>> List(const std::string& folder) override {
    std::vector<StoredFile> files;
    std::error_code error;
    fs::directory_iterator entry(folder, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      StoredFile file;
      file.name = entry->path().filename().string();
      std::error_code gone;  // a file that vanishes meanwhile has size 0
      file.is_folder = entry->is_directory(gone);
      const std::uintmax_t size = file.is_folder ? 0 : entry->file_size(gone);
      file.size_bytes = gone ? 0 : size;
      files.push_back(std::move(file));
    }
    if (error && error != std::errc::no_such_file_or_directory) {
      return FileError(error.value(), "list", folder);
    }
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
      return a.name < b.name;
    });
    return files;
  }

  Status Remove(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    return error ? FileError(error.value(), "remove", path) : Status::OK();
  }
};

}  // namespace

std::unique_ptr<Storage> MakeLocalStorage() {
  return std::make_unique<LocalStorage>();
}

}  // namespace millstream
