// SPDX-License-Identifier: Apache-2.0
#include "storage/unpublished_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "storage/storage.h"

namespace millstream {
namespace {

class Stream final : public arrow::io::OutputStream {
 public:
  explicit Stream(std::shared_ptr<UnpublishedFile> file) : file_(std::move(file)) {}

  using arrow::io::OutputStream::Write;
  Status Write(const void* data, std::int64_t num_bytes) override {
    return file_->Append({static_cast<const char*>(data), static_cast<std::size_t>(num_bytes)});
  }
  Status Close() override {
    is_closed_ = true;
    return file_->Finish();
  }
  bool closed() const override { return is_closed_; }
  Result<std::int64_t> Tell() const override {
    return static_cast<std::int64_t>(file_->size_bytes());
  }

 private:
  const std::shared_ptr<UnpublishedFile> file_;
  bool is_closed_ = false;
};

}  // namespace

UnpublishedFile::~UnpublishedFile() {
  if (mapped_ != nullptr) (void)munmap(mapped_, size_bytes_);
  if (scratch_ >= 0) (void)close(scratch_);
}

Status UnpublishedFile::Append(std::string_view bytes) {
  if (scratch_ < 0 && memory_.size() + bytes.size() > memory_bytes_max_) MS_RETURN_NOT_OK(Spill());
  size_bytes_ += bytes.size();
  if (scratch_ < 0) {
    memory_.append(bytes);
    return Status::OK();
  }
  while (!bytes.empty()) {
    const ssize_t written = write(scratch_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return FileError(written < 0 ? errno : EIO, "write", "a scratch file");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return Status::OK();
}

Status UnpublishedFile::Finish() {
  if (scratch_ < 0 || mapped_ != nullptr) return Status::OK();
  void* const mapped = mmap(nullptr, size_bytes_, PROT_READ, MAP_SHARED, scratch_, 0);
  if (mapped == MAP_FAILED) return FileError(errno, "read", "a scratch file");
  mapped_ = mapped;
  return Status::OK();
}

std::string_view UnpublishedFile::bytes() const {
  if (mapped_ == nullptr) return memory_;
  return {static_cast<const char*>(mapped_), size_bytes_};
}

// Moves what is in memory to a file that nobody else can see and that ends with this process.
Status UnpublishedFile::Spill() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) return FileError(error.value(), "find", "the folder for temporary files");
  std::string name = (folder / "millstream-part-XXXXXX").string();
  scratch_ = mkostemp(name.data(), O_CLOEXEC);
  if (scratch_ < 0) return FileError(errno, "create", name);
  (void)unlink(name.c_str());
  const std::string held = std::exchange(memory_, {});
  size_bytes_ = 0;
  return Append(held);
}

std::shared_ptr<arrow::io::OutputStream> StreamTo(std::shared_ptr<UnpublishedFile> file) {
  return std::make_shared<Stream>(std::move(file));
}

}  // namespace millstream
