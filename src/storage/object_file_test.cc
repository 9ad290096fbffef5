// SPDX-License-Identifier: Apache-2.0
#include "storage/object_file.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "arrow/buffer.h"
#include "arrow/memory_pool.h"
#include "storage/simulated_store.h"
#include "storage/storage.h"

namespace millstream {
namespace {

class ObjectFileTest : public testing::Test {
 protected:
  void Write(const std::string& bytes) {
    (void)store_->Put({"dir/file", bytes, PutCondition::None(), "id"});
  }
  ObjectFile Open() {
    return {
        store_, store_->Head("dir/file").object, "s3://b/dir/file", arrow::default_memory_pool()
    };
  }

  const std::shared_ptr<SimulatedClock> clock_ = std::make_shared<SimulatedClock>(1);
  const std::shared_ptr<SimulatedStore> store_ = std::make_shared<SimulatedStore>(clock_, 1);
};

TEST_F(ObjectFileTest, ReadsRangesUpToTheEnd) {
  Write("0123456789");
  ObjectFile file = Open();
  EXPECT_EQ(file.GetSize().ValueOrDie(), 10);
  EXPECT_EQ(file.ReadAt(3, 4).ValueOrDie()->ToString(), "3456");
  EXPECT_EQ(file.ReadAt(8, 100).ValueOrDie()->ToString(), "89");
  EXPECT_EQ(file.ReadAt(10, 1).ValueOrDie()->size(), 0);
  EXPECT_EQ(file.ReadAt(1'000'000, std::int64_t{1} << 50).ValueOrDie()->size(), 0);
  EXPECT_FALSE(file.ReadAt(-1, 1).ok());
  EXPECT_EQ(file.Read(4).ValueOrDie()->ToString(), "0123");
  EXPECT_EQ(file.Read(4).ValueOrDie()->ToString(), "4567");
  EXPECT_EQ(file.Tell().ValueOrDie(), 8);
  ASSERT_TRUE(file.Seek(2).ok());
  EXPECT_EQ(file.Read(1).ValueOrDie()->ToString(), "2");
  EXPECT_TRUE(file.failure().ok());
}

TEST_F(ObjectFileTest, AnotherVersionIsAConflictAndRemembered) {
  Write("0123456789");
  ObjectFile file = Open();
  Write("abcdefghij");
  EXPECT_TRUE(IsConflict(file.ReadAt(0, 1).status()));
  EXPECT_TRUE(IsConflict(file.failure()));
  (void)store_->Delete("dir/file");
  EXPECT_TRUE(IsConflict(file.ReadAt(0, 1).status()));
}

TEST_F(ObjectFileTest, AStoreThatDoesNotAnswerIsNoDamage) {
  Write("0123456789");
  ObjectFile file = Open();
  StoreFaults faults;
  faults.unavailable = 1;
  store_->SetFaults(faults);
  EXPECT_TRUE(IsDiskTrouble(file.ReadAt(0, 1).status()));
  EXPECT_TRUE(IsDiskTrouble(file.failure()));
}

}  // namespace
}  // namespace millstream
