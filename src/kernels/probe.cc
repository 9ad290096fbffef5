// SPDX-License-Identifier: Apache-2.0
#include "kernels/probe.h"

#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/huge_buffer.h"
#include "kernels/tables.h"

namespace millstream::kernels {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kRuns = 8;
constexpr auto kRunTime = std::chrono::milliseconds(20);
constexpr std::int64_t kReadBytes = 256 << 10;  // between two looks at the clock

/// How much all threads do in a second, at the best of the runs. start(thread) prepares a thread
/// and returns what it then calls again and again, a function that works for some microseconds and
/// returns how much that was.
template <typename Start>
double BestRate(Team& team, const Start& start) {
  const std::int64_t threads = team.size();
  std::barrier together(threads);
  std::vector<double> rates(static_cast<std::size_t>(threads * kRuns));
  // As many pieces as threads, each of which waits for the others: a thread gets one.
  team.For(threads, 1, [&](std::int64_t thread, std::int64_t) {
    auto work = start(thread);
    for (std::int64_t run = 0; run < kRuns; ++run) {
      together.arrive_and_wait();
      const auto begin = Clock::now();
      auto now = begin;
      std::int64_t done = 0;
      for (; now - begin < kRunTime; now = Clock::now()) done += work();
      const std::chrono::duration<double> seconds = now - begin;
      rates[static_cast<std::size_t>(run * threads + thread)] =
          static_cast<double>(done) / seconds.count();
    }
  });
  double best = 0;
  for (auto run = rates.begin(); run != rates.end(); run += threads) {
    double sum = 0;
    for (std::int64_t thread = 0; thread < threads; ++thread) sum += run[thread];
    best = std::max(best, sum);
  }
  return best;
}

double ArithmeticRate(Team& team, std::int64_t (*loop)()) {
  return BestRate(team, [&](std::int64_t) { return loop; });
}

std::int64_t BufferBytes(std::size_t bytes_max) {
  constexpr std::int64_t kLeast = std::int64_t{512} << 20;
  const std::int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 if it is not known
  return std::min<std::int64_t>(std::max(kLeast, 4 * cache), static_cast<std::int64_t>(bytes_max));
}

double ReadRate(Team& team, const PeakLoops& loops, std::size_t bytes_max) {
  const std::int64_t share =
      std::max(kReadBytes, BufferBytes(bytes_max) / team.size()) / kReadBytes;
  HugeBuffer buffer(static_cast<std::size_t>(share * kReadBytes * team.size()));
  if (buffer.data() == nullptr) return 0;
  return BestRate(team, [&](std::int64_t thread) {
    std::byte* const part = buffer.data() + thread * share * kReadBytes;
    // The thread that reads it touches it first, so that it lies in that thread's memory.
    std::memset(part, 1, static_cast<std::size_t>(share * kReadBytes));
    return [&loops, part, share, next = std::int64_t{0}]() mutable {
      loops.read(part + next * kReadBytes, kReadBytes);
      next = (next + 1) % share;
      return kReadBytes;
    };
  });
}

PeakLoops LoopsOf(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return ReferencePeakLoops();
    case Isa::kAvx2:
      return Avx2PeakLoops();
    case Isa::kAvx512:
      return Avx512PeakLoops();
    case Isa::kAvx512Bf16:
      return Avx512Bf16PeakLoops();
  }
  return ReferencePeakLoops();
}

}  // namespace

Peaks MeasurePeaks(Isa isa, Team& team, std::size_t buffer_bytes_max) {
  const PeakLoops loops = LoopsOf(isa);
  Peaks peaks;
  peaks.f32_flops = ArithmeticRate(team, loops.f32);
  // What has no instruction of its own is not measured twice.
  const auto rate = [&](std::int64_t (*loop)()) {
    return loop == loops.f32 ? peaks.f32_flops : ArithmeticRate(team, loop);
  };
  peaks.bf16_flops = rate(loops.bf16);
  peaks.int8_ops = rate(loops.int8);
  peaks.bytes_per_second = ReadRate(team, loops, buffer_bytes_max);
  return peaks;
}

}  // namespace millstream::kernels
