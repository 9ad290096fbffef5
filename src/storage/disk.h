// SPDX-License-Identifier: Apache-2.0
// The system calls that files are made of. Storage on disks is written over them, so that the same
// code runs on the machine's disk, on a simulated one that loses power, and on one that fails when
// told.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/storage.h"

namespace millstream {

/// Every call returns 0 or an errno, as the system call does that it stands for. Thread-safe.
class Disk {
 public:
  /// An open file.
  using File = int;
  enum class Mode {
    kRead,
    kCreate,    // to write; fails if the name is taken
    kTruncate,  // to write; empties what stands there
  };

  virtual ~Disk() = default;
  virtual int Open(const std::string& path, Mode mode, File* file) = 0;
  /// May write fewer bytes than given.
  virtual int Write(File file, std::string_view bytes, std::size_t* written) = 0;
  /// Reads what begins at byte `at`; may read fewer bytes than fit, and 0 at the end.
  virtual int Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* read) = 0;
  virtual int Size(File file, std::uint64_t* bytes) = 0;
  /// Starts writing a file back, so that several are on their way before the first is waited for.
  virtual void StartSync(File file) = 0;
  /// Makes a file's bytes, or a folder's entries, survive a power cut. After a failure what was
  /// written is lost for good, whatever a second call says.
  virtual int Sync(File file) = 0;
  virtual int Close(File file) = 0;

  virtual int RenameWithoutReplacing(const std::string& from, const std::string& to) = 0;
  /// Swaps two names.
  virtual int Exchange(const std::string& a, const std::string& b) = 0;
  virtual int MakeFolder(const std::string& path, bool owner_only) = 0;
  virtual int List(const std::string& folder, std::vector<StoredFile>* files) = 0;
  /// Removes a file, or a folder with all in it.
  virtual int Remove(const std::string& path) = 0;

  /// Creates a file of so many bytes that are really there.
  virtual int Reserve(const std::string& path, std::uint64_t bytes) = 0;
  virtual int Space(const std::string& path, DiskSpace* space) = 0;
  /// Locks a file for as long as it stays open, creating it, and writes `holder` into it.
  /// EWOULDBLOCK if it is locked.
  virtual int Lock(const std::string& path, std::string_view holder, File* file) = 0;
  /// Whether a file is locked. ENOENT if there is none.
  virtual int IsLocked(const std::string& path, bool* locked) = 0;
};

/// This machine's files.
std::unique_ptr<Disk> MakeLocalDisk();

std::unique_ptr<Storage> MakeDiskStorage(std::shared_ptr<Disk> disk);

}  // namespace millstream
