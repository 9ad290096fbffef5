// SPDX-License-Identifier: Apache-2.0
#include "data/bounded_pool.h"

#include <string>

#include "base/status.h"

namespace millstream {
namespace {

class Pool final : public arrow::MemoryPool {
 public:
  Status Allocate(std::int64_t size, std::int64_t alignment, std::uint8_t** out) override {
    MS_RETURN_NOT_OK(Judge(size));
    return wrapped_->Allocate(size, alignment, out);
  }
  Status Reallocate(
      std::int64_t old_size, std::int64_t new_size, std::int64_t alignment, std::uint8_t** ptr
  ) override {
    MS_RETURN_NOT_OK(Judge(new_size));
    return wrapped_->Reallocate(old_size, new_size, alignment, ptr);
  }
  void Free(std::uint8_t* buffer, std::int64_t size, std::int64_t alignment) override {
    wrapped_->Free(buffer, size, alignment);
  }
  std::int64_t bytes_allocated() const override { return wrapped_->bytes_allocated(); }
  std::int64_t total_bytes_allocated() const override { return wrapped_->total_bytes_allocated(); }
  std::int64_t num_allocations() const override { return wrapped_->num_allocations(); }
  std::string backend_name() const override { return wrapped_->backend_name(); }

 private:
  static Status Judge(std::int64_t size) {
    if (size <= kTableBufferBytesMax) return Status::OK();
    return Status::OutOfMemory("the file asks for a buffer above 2 GiB: it is damaged or hostile");
  }

  arrow::MemoryPool* const wrapped_ = arrow::default_memory_pool();
};

}  // namespace

arrow::MemoryPool* BoundedPool() {
  // Never destroyed: at exit Arrow's own threads may still hold a buffer of it.
  static Pool* const pool = new Pool();
  return pool;
}

}  // namespace millstream
