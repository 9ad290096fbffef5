// SPDX-License-Identifier: Apache-2.0
#include "storage/range_file.h"

#include <algorithm>
#include <utility>

#include "arrow/buffer.h"

namespace millstream {

RangeFile::RangeFile(std::string name, std::uint64_t size_bytes, arrow::MemoryPool* pool)
    : name_(std::move(name)), size_bytes_(size_bytes), pool_(pool) {
  set_mode(arrow::io::FileMode::READ);
}

Status RangeFile::Close() {
  is_closed_ = true;
  return Status::OK();
}

Status RangeFile::Seek(std::int64_t position) {
  if (position < 0) return Status::Invalid("a negative place in ", name_);
  position_ = position;
  return Status::OK();
}

Result<std::int64_t> RangeFile::Read(std::int64_t num_bytes, void* out) {
  MS_ASSIGN_OR_RETURN(const std::int64_t got, ReadAt(position_, num_bytes, out));
  position_ += got;
  return got;
}

Result<std::shared_ptr<arrow::Buffer>> RangeFile::Read(std::int64_t num_bytes) {
  MS_ASSIGN_OR_RETURN(auto buffer, ReadAt(position_, num_bytes));
  position_ += buffer->size();
  return buffer;
}

Result<std::int64_t> RangeFile::ReadAt(std::int64_t position, std::int64_t num_bytes, void* out) {
  if (position < 0 || num_bytes < 0) return Status::Invalid("a negative range of ", name_);
  const auto size = static_cast<std::int64_t>(size_bytes_);
  const std::int64_t wanted = std::min(num_bytes, std::max<std::int64_t>(size - position, 0));
  if (wanted == 0) return 0;
  MS_RETURN_NOT_OK(
      ReadRange(static_cast<std::uint64_t>(position), static_cast<std::uint64_t>(wanted), out)
  );
  return wanted;
}

Result<std::shared_ptr<arrow::Buffer>> RangeFile::ReadAt(
    std::int64_t position, std::int64_t num_bytes
) {
  const auto size = static_cast<std::int64_t>(size_bytes_);
  const std::int64_t left = std::clamp<std::int64_t>(size - position, 0, size);
  const std::int64_t wanted = std::clamp<std::int64_t>(num_bytes, 0, left);
  MS_ASSIGN_OR_RETURN(auto buffer, arrow::AllocateResizableBuffer(wanted, pool_));
  MS_ASSIGN_OR_RETURN(const std::int64_t got, ReadAt(position, wanted, buffer->mutable_data()));
  MS_RETURN_NOT_OK(buffer->Resize(got));
  return std::shared_ptr<arrow::Buffer>(std::move(buffer));
}

}  // namespace millstream
