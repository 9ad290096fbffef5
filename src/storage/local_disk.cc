// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "storage/disk.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kFileMode = 0666;  // less the umask

int ErrorOf(long result) {
  return result < 0 ? errno : 0;
}

std::string CautionOf(const struct statfs& info) {
  constexpr decltype(info.f_type) kCifs = 0xff534d42;
  constexpr decltype(info.f_type) kSmb2 = 0xfe534d42;
  switch (info.f_type) {
    case NFS_SUPER_MAGIC:
      return "it is on NFS, where a lock may be lost and a sync may not reach the disk: run it "
             "from one machine at a time, or write to a local disk";
    case kCifs:
    case kSmb2:
      return "it is on an SMB share, where a lock may be lost and a sync may not reach the disk: "
             "run it from one machine at a time, or write to a local disk";
    case TMPFS_MAGIC:
      return "it is in memory (tmpfs), which a power cut or a reboot takes with it: write to a "
             "disk what is to last";
    default:
      return {};
  }
}

class LocalDisk final : public Disk {
 public:
  int Open(const std::string& path, Mode mode, File* file) override {
    const int flags = mode == Mode::kRead     ? O_RDONLY
                      : mode == Mode::kCreate ? O_WRONLY | O_CREAT | O_EXCL
                                              : O_WRONLY | O_CREAT | O_TRUNC;
    *file = open(path.c_str(), flags | O_CLOEXEC, kFileMode);
    return ErrorOf(*file);
  }
  int Write(File file, std::string_view bytes, std::size_t* written) override {
    const ssize_t count = write(file, bytes.data(), bytes.size());
    *written = count < 0 ? 0 : static_cast<std::size_t>(count);
    return ErrorOf(count);
  }
  int Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* got) override {
    const ssize_t count = pread(file, buffer.data(), buffer.size(), static_cast<off_t>(at));
    *got = count < 0 ? 0 : static_cast<std::size_t>(count);
    return ErrorOf(count);
  }
  int Size(File file, std::uint64_t* bytes) override {
    struct stat info{};
    if (fstat(file, &info) != 0) return errno;
    *bytes = static_cast<std::uint64_t>(info.st_size);
    return 0;
  }
#ifdef MS_NO_SYNC
  void StartSync(File) override {}
  int Sync(File) override { return 0; }
#else
  void StartSync(File file) override { (void)sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE); }
  int Sync(File file) override { return ErrorOf(fdatasync(file)); }
#endif
  int Close(File file) override { return ErrorOf(close(file)); }

  int RenameWithoutReplacing(const std::string& from, const std::string& to) override {
    if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != ENOSYS && errno != EINVAL) return errno;
    // A file system without it: a hard link does not replace anything either.
    if (link(from.c_str(), to.c_str()) != 0) return errno;
    return ErrorOf(unlink(from.c_str()));
  }
  int Exchange(const std::string& a, const std::string& b) override {
    return ErrorOf(renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE));
  }
  int MakeFolder(const std::string& path, bool owner_only) override {
    return ErrorOf(mkdir(path.c_str(), owner_only ? 0700 : 0777));
  }
  int List(const std::string& folder, std::vector<StoredFile>* files) override {
    std::error_code error;
    fs::directory_iterator entry(folder, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      StoredFile file;
      file.name = entry->path().filename().string();
      std::error_code gone;  // a file that vanishes meanwhile has size 0
      file.is_folder = entry->is_directory(gone);
      const std::uintmax_t size = file.is_folder ? 0 : entry->file_size(gone);
      file.size_bytes = gone ? 0 : size;
      files->push_back(std::move(file));
    }
    return error.value();
  }
  int Remove(const std::string& path) override {
    std::error_code error;
    fs::remove_all(path, error);
    return error.value();
  }

  int Reserve(const std::string& path, std::uint64_t bytes) override {
    File file = 0;
    int error = Open(path, Mode::kTruncate, &file);
    if (error != 0) return error;
    error = posix_fallocate(file, 0, static_cast<off_t>(bytes));
    const int closed = Close(file);
    if (error == 0) error = closed;
    if (error != 0) (void)unlink(path.c_str());
    return error;
  }
  int Space(const std::string& path, DiskSpace* space) override {
    struct statfs info{};
    if (statfs(path.c_str(), &info) != 0) return errno;
    const auto block = static_cast<std::uint64_t>(info.f_frsize > 0 ? info.f_frsize : info.f_bsize);
    space->free_bytes = info.f_bavail * block;
    space->total_bytes = info.f_blocks * block;
    space->caution = CautionOf(info);
    return 0;
  }
  int Lock(const std::string& path, std::string_view holder, File* file) override {
    const File opened = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kFileMode);
    if (opened < 0) return errno;
    struct flock lock = WholeFile();
    int error = ErrorOf(fcntl(opened, F_OFD_SETLK, &lock));
    if (error == EACCES) error = EWOULDBLOCK;
    if (error == 0) error = ErrorOf(ftruncate(opened, 0));
    if (error == 0) error = ErrorOf(pwrite(opened, holder.data(), holder.size(), 0));
    if (error != 0) {
      (void)close(opened);
      return error;
    }
    *file = opened;
    return 0;
  }
  int IsLocked(const std::string& path, bool* locked) override {
    File file = 0;
    if (const int error = Open(path, Mode::kRead, &file); error != 0) return error;
    struct flock lock = WholeFile();
    const int error = ErrorOf(fcntl(file, F_OFD_GETLK, &lock));
    *locked = lock.l_type != F_UNLCK;
    (void)close(file);
    return error;
  }

 private:
  static struct flock WholeFile() {
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return lock;
  }
};

}  // namespace

std::unique_ptr<Disk> MakeLocalDisk() {
  return std::make_unique<LocalDisk>();
}

}  // namespace millstream
