// SPDX-License-Identifier: Apache-2.0
#include "data/bounded_pool.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

TEST(BoundedPoolTest, RefusesABufferBeforeItIsAllocated) {
  std::uint8_t* buffer = nullptr;
  EXPECT_TRUE(BoundedPool()->Allocate(std::int64_t{1} << 40, 64, &buffer).IsOutOfMemory());
  EXPECT_EQ(buffer, nullptr);
  ASSERT_TRUE(BoundedPool()->Allocate(100, 64, &buffer).ok());
  EXPECT_TRUE(BoundedPool()->Reallocate(100, kTableBufferBytesMax + 1, 64, &buffer).IsOutOfMemory()
  );
  BoundedPool()->Free(buffer, 100, 64);
}

}  // namespace
}  // namespace millstream
