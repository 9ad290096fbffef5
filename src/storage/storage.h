// SPDX-License-Identifier: Apache-2.0
// The files that Millstream itself writes, behind one interface: disks and object stores. Names are
// '/'-separated paths.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/io/interfaces.h"
#include "base/status.h"

namespace millstream {

struct StoredFile {
  std::string name;  // without its folder
  std::uint64_t size_bytes = 0;
  bool is_folder = false;
};

/// A finished file, and the name under which it is to stand.
struct Publication {
  std::string from, to;
};

struct DiskSpace {
  std::uint64_t free_bytes = 0;   // for us
  std::uint64_t total_bytes = 0;  // of the whole file system
  std::string caution;            // what is risky about this kind of file system, or empty
};

/// A file that grows: a journal or a row log. Append and Sync may be called at the same time, each
/// by one thread.
class AppendFile {
 public:
  virtual ~AppendFile() = default;
  /// What is appended survives this process's death; on an object store only once it is synced.
  virtual Status Append(std::string_view bytes) = 0;
  /// Makes what was appended survive a power cut, the file's name included. After a failure the
  /// file is lost: write what was not synced to another one.
  virtual Status Sync() = 0;
};

/// Holds a lock until it is destroyed.
class StorageLock {
 public:
  virtual ~StorageLock() = default;
};

/// Thread-safe.
class Storage {
 public:
  virtual ~Storage() = default;
  /// Creates or truncates an unpublished file (its folders too) and writes to it.
  virtual Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) = 0;
  /// Creates a file to append to (its folders too). AlreadyExists if the name is taken. Read()
  /// reads it.
  virtual Result<std::unique_ptr<AppendFile>> CreateAppend(const std::string& path) = 0;
  /// Moves finished files to their final names, each if nothing has that name; the result says
  /// for each whether it was moved, and one that was not stays. What stands under a final name is
  /// whole, also after a power cut. Many at once cost little more than one. After a failure any of
  /// them may have been moved.
  virtual Result<std::vector<bool>> PublishAll(std::span<const Publication> files) = 0;
  /// The same for one file. AlreadyExists if it was not moved.
  Status Publish(const std::string& from, const std::string& to);
  /// What an object store knows a published file's bytes by, for Exchange(); empty on a disk.
  /// IsNotFound if there is none.
  virtual Result<std::string> Version(const std::string& path) = 0;
  /// Puts a finished file in the place of a published one, at once: at every moment, also after a
  /// power cut, the name `to` stands for the old bytes or the new ones. The old ones may be left
  /// under `from`. A Conflict on an object store if it is no longer `version` of it that stands.
  virtual Status Exchange(
      const std::string& from, const std::string& to, const std::string& version
  ) = 0;
  /// Makes what another process left under a name survive a power cut: a file's bytes, or a
  /// folder's entries, and the name.
  virtual Status Sync(const std::string& path) = 0;
  /// Opens a published file to read it in ranges; from several threads but for Read and Seek. On an
  /// object store it is the version that stands now: once that is replaced, reads are a Conflict.
  /// IsNotFound if there is none.
  virtual Result<std::shared_ptr<arrow::io::RandomAccessFile>> Open(const std::string& path) = 0;
  /// Reads a whole small file. `max_bytes` bounds it. IsNotFound if there is none.
  virtual Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) = 0;
  /// Lists a folder, sorted by name; empty if there is none.
  virtual Result<std::vector<StoredFile>> List(const std::string& folder) = 0;
  /// Removes a file or a folder with all in it. OK if there is none. Never called on a published
  /// part.
  virtual Status Remove(const std::string& path) = 0;

  /// Takes a lock that goes with this process; `holder` is what others are told. AlreadyExists,
  /// with the holder's text as its message, if another has it.
  virtual Result<std::unique_ptr<StorageLock>> Lock(
      const std::string& path, std::string_view holder
  ) = 0;
  /// What the holder of a lock left for others; nothing if nobody has it.
  virtual Result<std::optional<std::string>> LockHolder(const std::string& path) = 0;
  /// The space where a folder lies; not a number (all free) where space has no end.
  virtual Result<DiskSpace> Space(const std::string& folder) = 0;
  /// Creates a file (its folders too) that takes up so many bytes, to be removed when space runs
  /// out.
  virtual Status Reserve(const std::string& path, std::uint64_t bytes) = 0;
};

/// The local disk. Creates state folders (`*.millstream`) with mode 0700, all else by the umask.
std::unique_ptr<Storage> MakeLocalStorage();

/// The local disk and, for paths "s3://bucket/...", buckets, with credentials from the usual chain.
/// Once `stop` is requested, a store that does not answer is no longer waited for. The error of an
/// S3 path that cannot be used says what to set.
std::unique_ptr<Storage> MakeStorage(std::stop_token stop);

/// Writes a small file whole, by Create and Publish through a name beside it. AlreadyExists if it
/// stands.
Status PublishBytes(Storage& storage, const std::string& path, std::string_view bytes);

/// Whether an operation failed because there is no such file.
bool IsNotFound(const Status& status);
/// Whether it failed because the disk or the quota is full: the job can be resumed once there is
/// room.
bool IsDiskFull(const Status& status);
/// Whether it failed for a reason that may go away (the disk failed or is full, this machine is out
/// of memory or of open files): the job can be resumed.
bool IsDiskTrouble(const Status& status);

/// The Status of a failed operation on a file: what could not be done, to which file, the system's
/// reason and, where there is something to do about it, what. `error` is an errno.
Status FileError(int error, std::string_view operation, std::string_view path);

}  // namespace millstream
