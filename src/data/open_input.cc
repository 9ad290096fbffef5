// SPDX-License-Identifier: Apache-2.0
#include "data/open_input.h"

#include "arrow/io/file.h"
#include "data/bounded_pool.h"
#include "storage/object_file.h"
#include "storage/path.h"

namespace millstream {

Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInput(const InputFile& file) {
  if (IsObjectPath(file.path)) {
    return OpenObject(file.path, file.size_bytes, file.etag, BoundedPool());
  }
  return arrow::io::ReadableFile::Open(file.path, BoundedPool());
}

Status ReadFailure(const arrow::io::RandomAccessFile& file) {
  const auto* const object = dynamic_cast<const ObjectFile*>(&file);
  return object == nullptr ? Status::OK() : object->failure();
}

}  // namespace millstream
