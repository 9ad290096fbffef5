// SPDX-License-Identifier: Apache-2.0
#include "pipeline/in_flight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace millstream {
namespace {

TEST(InFlightTest, TheOldestPieceIsAlwaysAdmittedAndOthersWaitForItsEnd) {
  InFlight in_flight(100);
  in_flight.Open(0);
  in_flight.Open(1);
  std::stop_source stop;
  EXPECT_TRUE(in_flight.Admit(0, 1000, stop.get_token()));
  stop.request_stop();
  EXPECT_FALSE(in_flight.Admit(1, 10, stop.get_token()));
  in_flight.Close(0);
  std::stop_source other;
  EXPECT_TRUE(in_flight.Admit(1, 1000, other.get_token()));
}

TEST(InFlightTest, APieceIsClosedAndItsBytesGoAtOnce) {
  std::atomic<std::int64_t> bytes = 0;
  InFlight in_flight(100, &bytes);
  in_flight.Open(3);
  in_flight.Open(4);
  ASSERT_TRUE(in_flight.Admit(3, 60, {}));
  ASSERT_TRUE(in_flight.Admit(4, 40, {}));
  in_flight.Grow(3, 500);
  in_flight.Close(4);
  EXPECT_FALSE(in_flight.idle());
  EXPECT_EQ(bytes, 560);
  in_flight.Close(3);
  in_flight.Grow(3, 7);  // closed: nobody would give the bytes back
  EXPECT_TRUE(in_flight.idle());
  EXPECT_EQ(bytes, 0);
}

TEST(InFlightTest, AWaitingReaderGoesOnWhenTheBytesAreBackAndEndsOnStop) {
  InFlight in_flight(100);
  for (std::int64_t piece : {0, 1, 2}) in_flight.Open(piece);
  ASSERT_TRUE(in_flight.Admit(0, 50, {}));
  ASSERT_TRUE(in_flight.Admit(1, 50, {}));
  std::stop_source stop;
  bool admitted = false, stopped = false;
  std::thread reader([&] {
    admitted = in_flight.Admit(2, 40, {});
    stopped = !in_flight.Admit(2, 100, stop.get_token());
  });
  in_flight.Close(1);
  stop.request_stop();
  reader.join();
  EXPECT_TRUE(admitted);
  EXPECT_TRUE(stopped);
}

// Readers and their rows' ends, each in its own order. What is counted here is at most what is
// counted there.
TEST(InFlightTest, ReadersStayWithinTheLimitAndTheOldestPiece) {
  constexpr std::int64_t kLimit = 400, kLargest = 400, kBatches = 4, kPieces = 400;
  InFlight in_flight(kLimit);
  std::atomic<std::int64_t> bytes = 0, peak = 0;
  std::mutex next_mutex;
  std::int64_t next = 0;
  const auto read = [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (true) {
      std::int64_t piece = 0;
      {
        std::lock_guard lock(next_mutex);
        if (next == kPieces) return;
        piece = next++;
        in_flight.Open(piece);
      }
      std::int64_t own = 0;
      for (std::int64_t batch = 0; batch < kBatches; ++batch) {
        const auto size = static_cast<std::int64_t>(random() % kLargest);
        EXPECT_TRUE(in_flight.Admit(piece, size, {}));
        own += size;
        const std::int64_t now = bytes += size;
        std::int64_t before = peak;
        while (before < now && !peak.compare_exchange_weak(before, now)) {
        }
        for (int i = 0; i < 20; ++i) std::this_thread::yield();  // let them meet
      }
      bytes -= own;
      in_flight.Close(piece);
    }
  };
  constexpr std::uint64_t kReaders = 8;
  std::vector<std::thread> readers;
  readers.reserve(kReaders);
  for (std::uint64_t seed = 0; seed < kReaders; ++seed) readers.emplace_back(read, seed);
  for (std::thread& reader : readers) reader.join();
  EXPECT_TRUE(in_flight.idle());
  EXPECT_LE(peak, kLimit + kBatches * kLargest);
}

}  // namespace
}  // namespace millstream
