// SPDX-License-Identifier: Apache-2.0
#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace millstream {
namespace {

/// Closes a file descriptor at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  const int value_;
};

Status SystemError(const char* what) {
  return Status::IOError(what, ": ", std::strerror(errno));
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not hang.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.value() < 0) return SystemError("cannot open the file");
  struct stat before{};
  if (::fstat(file.value(), &before) != 0) return SystemError("cannot stat the file");
  if (!S_ISREG(before.st_mode)) return Status::Invalid("not a regular file");
  const auto size = static_cast<std::size_t>(before.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value(), 0);
    if (data == MAP_FAILED) return SystemError("cannot map the file");
  }
  std::shared_ptr<const MappedFile> mapped(
      new MappedFile({static_cast<const std::byte*>(data), size})
  );
  struct stat after{};
  if (::fstat(file.value(), &after) != 0) return SystemError("cannot stat the file");
  if (after.st_size != before.st_size) return Status::IOError("the file changes while it is read");
  return mapped;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace millstream
