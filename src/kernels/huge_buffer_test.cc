// SPDX-License-Identifier: Apache-2.0
#include "kernels/huge_buffer.h"

#include <gtest/gtest.h>

#include <utility>

namespace millstream::kernels {
namespace {

TEST(HugeBufferTest, IsZeroedMovableAndEmptyWhenThereIsNone) {
  HugeBuffer buffer(std::size_t{5} << 20);
  ASSERT_NE(buffer.data(), nullptr);
  EXPECT_EQ(buffer.data()[buffer.size_bytes() - 1], std::byte{0});
  std::byte* data = buffer.data();
  HugeBuffer moved(std::move(buffer));
  EXPECT_EQ(moved.data(), data);
  EXPECT_EQ(HugeBuffer(~std::size_t{0}).data(), nullptr);
  EXPECT_EQ(HugeBuffer(0).data(), nullptr);
}

}  // namespace
}  // namespace millstream::kernels
