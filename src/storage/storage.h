// SPDX-License-Identifier: Apache-2.0
// The files that Millstream itself writes, behind one interface: local disk today, object stores
// and simulated disks later. Names are '/'-separated paths.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
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

/// Thread-safe.
class Storage {
 public:
  virtual ~Storage() = default;
  /// Creates or truncates an unpublished file (its folders too) and writes to it.
  virtual Result<std::shared_ptr<arrow::io::OutputStream>> Create(const std::string& path) = 0;
  /// Moves finished files to their final names, each if nothing has that name; the result says
  /// for each whether it was moved, and one that was not stays. What stands under a final name is
  /// whole, also after a power cut. Many at once cost little more than one. After a failure any of
  /// them may have been moved.
  virtual Result<std::vector<bool>> PublishAll(std::span<const Publication> files) = 0;
  /// The same for one file. AlreadyExists if it was not moved.
  Status Publish(const std::string& from, const std::string& to);
  /// Reads a whole small file. `max_bytes` bounds it. IsNotFound if there is none.
  virtual Result<std::string> Read(const std::string& path, std::uint64_t max_bytes) = 0;
  /// Lists a folder, sorted by name; empty if there is none.
  virtual Result<std::vector<StoredFile>> List(const std::string& folder) = 0;
  /// Removes a file or a folder with all in it. OK if there is none. Never called on a published
  /// part.
  virtual Status Remove(const std::string& path) = 0;
};

/// The local disk. Creates state folders (`*.millstream`) with mode 0700, all else by the umask.
std::unique_ptr<Storage> MakeLocalStorage();

/// Writes a small file whole, by Create and Publish through a name beside it. AlreadyExists if it
/// stands.
Status PublishBytes(Storage& storage, const std::string& path, std::string_view bytes);

/// Whether an operation failed because there is no such file.
bool IsNotFound(const Status& status);
/// Whether it failed because the disk or the quota is full: the job can be resumed once there is
/// room.
bool IsDiskFull(const Status& status);

/// The Status of a failed operation on a file: what could not be done, to which file, the system's
/// reason and, where there is something to do about it, what. `error` is an errno.
Status FileError(int error, std::string_view operation, std::string_view path);

}  // namespace millstream
