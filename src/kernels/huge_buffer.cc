// SPDX-License-Identifier: Apache-2.0
#include "kernels/huge_buffer.h"

#include <sys/mman.h>

#include <utility>

namespace millstream::kernels {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

HugeBuffer::HugeBuffer(std::size_t size_bytes) {
  if (size_bytes == 0 || size_bytes > ~std::size_t{0} - kHugePage) return;
  const std::size_t rounded = (size_bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = mmap(
      nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
  );
  if (memory == MAP_FAILED) return;
  if (rounded > kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
  size_bytes_ = rounded;
}

HugeBuffer::~HugeBuffer() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
}

HugeBuffer::HugeBuffer(HugeBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

}  // namespace millstream::kernels
