// SPDX-License-Identifier: Apache-2.0
#include "base/channel.h"

#include <gtest/gtest.h>

#include "base/task_scope.h"

namespace millstream {
namespace {

TEST(ChannelTest, DeliversEverythingInOrderThroughASmallBound) {
  Channel<int> channel(2);
  TaskScope scope;
  scope.Spawn([&](std::stop_token stop) {
    for (int i = 0; i < 1000; ++i) {
      if (!channel.Push(i, stop)) return Status::Invalid("push refused");
    }
    channel.Close();
    return Status::OK();
  });
  int next = 0;
  for (auto items = channel.PopAll({}); !items.empty(); items = channel.PopAll({})) {
    EXPECT_LE(items.size(), 2U);
    for (const int item : items) EXPECT_EQ(item, next++);
  }
  EXPECT_EQ(next, 1000);
  EXPECT_TRUE(scope.Join().ok());
}

TEST(ChannelTest, CloseWakesABlockedProducer) {
  Channel<int> channel(1);
  ASSERT_TRUE(channel.Push(1, {}));
  TaskScope scope;
  scope.Spawn([&](std::stop_token stop) {
    return channel.Push(2, stop) ? Status::Invalid("pushed into a closed channel") : Status::OK();
  });
  channel.Close();
  EXPECT_TRUE(scope.Join().ok());
}

TEST(ChannelTest, StopWakesABlockedConsumer) {
  Channel<int> channel(1);
  std::stop_source stop;
  TaskScope scope;
  scope.Spawn([&](std::stop_token) {
    return channel.PopAll(stop.get_token()).empty() ? Status::OK()
                                                    : Status::Invalid("popped from nothing");
  });
  stop.request_stop();
  EXPECT_TRUE(scope.Join().ok());
}

TEST(TaskScopeTest, FirstFailureStopsTheOthersAndIsReturned) {
  Channel<int> never(1);
  TaskScope scope;
  scope.Spawn([&](std::stop_token stop) {
    (void)never.PopAll(stop);
    return Status::OK();
  });
  scope.Spawn([](std::stop_token) { return Status::IOError("disk gone"); });
  EXPECT_EQ(scope.Join().message(), "disk gone");
}

TEST(TaskScopeTest, AnExceptionBecomesAStatus) {
  TaskScope scope;
  scope.Spawn([](std::stop_token) -> Status { throw std::runtime_error("thrown"); });
  EXPECT_EQ(scope.Join().message(), "thrown");
}

}  // namespace
}  // namespace millstream
