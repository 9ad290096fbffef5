// SPDX-License-Identifier: Apache-2.0
// Memory for weights and caches: zeroed, aligned to pages, in huge pages where the system gives
// them. Pages never touched cost nothing.

#pragma once

#include <cstddef>

namespace millstream::kernels {

class HugeBuffer {
 public:
  HugeBuffer() = default;
  /// Empty (data() is null) if the system has no such memory.
  explicit HugeBuffer(std::size_t size_bytes);
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept;
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

}  // namespace millstream::kernels
