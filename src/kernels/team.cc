// SPDX-License-Identifier: Apache-2.0
#include "kernels/team.h"

#include <immintrin.h>

#include <algorithm>

namespace millstream::kernels {
namespace {

constexpr int kFieldBits = 24;
constexpr std::uint64_t kFieldMask = (std::uint64_t{1} << kFieldBits) - 1;
constexpr int kSpins = 400;  // some 10 microseconds

std::uint64_t Pieces(std::uint64_t ticket) {
  return (ticket >> kFieldBits) & kFieldMask;
}
std::uint64_t Next(std::uint64_t ticket) {
  return ticket & kFieldMask;
}

/// Spins until `value` is no longer `old`, or for a moment.
template <typename T>
bool SpinWhile(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return false;
    _mm_pause();
  }
  return true;
}

}  // namespace

Team::Team(int threads) {
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

Team::~Team() {
  stopped_.store(true);
  published_.fetch_add(1);
  published_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::int64_t Team::Grain(std::int64_t count, std::int64_t pieces) const {
  return std::max<std::int64_t>(1, count / (pieces * size()));
}

void Team::Run(const Loop& loop) {
  if (loop.count <= 0) return;
  // The pieces must fit their field.
  const std::int64_t grain =
      std::max(loop.grain, loop.count / static_cast<std::int64_t>(kFieldMask / 2) + 1);
  const std::int64_t pieces = (loop.count + grain - 1) / grain;
  if (threads_.empty() || pieces == 1) {
    loop.call(loop.body, 0, loop.count);
    return;
  }
  // No thread reads loop_ or counts in finished_ now: every piece of the last loop is finished, and
  // a ticket beyond its pieces is not acted upon.
  loop_ = loop;
  loop_.grain = grain;
  finished_.store(0, std::memory_order_relaxed);
  const std::uint64_t generation =
      (ticket_.load(std::memory_order_relaxed) >> (2 * kFieldBits)) + 1;
  // Release: whoever takes a ticket sees loop_.
  ticket_.store(
      (generation << (2 * kFieldBits)) | (static_cast<std::uint64_t>(pieces) << kFieldBits),
      std::memory_order_release
  );
  published_.fetch_add(1);
  published_.notify_all();
  TakePieces();
  const auto all = static_cast<std::uint32_t>(pieces);
  for (std::uint32_t done = finished_.load(std::memory_order_acquire); done != all;
       done = finished_.load(std::memory_order_acquire)) {
    if (SpinWhile(finished_, done)) finished_.wait(done);
  }
}

void Team::TakePieces() {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (Next(ticket) < Pieces(ticket)) {
    ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    const std::uint64_t piece = Next(ticket);
    if (piece >= Pieces(ticket)) return;
    const std::int64_t begin = static_cast<std::int64_t>(piece) * loop_.grain;
    loop_.call(loop_.body, begin, std::min(loop_.count, begin + loop_.grain));
    // Release: the caller of Run() sees what the piece wrote, and may then reuse loop_.
    const std::uint64_t pieces = Pieces(ticket);
    if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) finished_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void Team::Work() {
  while (true) {
    // Read before looking for work, so that a loop published meanwhile ends the wait below.
    const std::uint32_t published = published_.load();
    if (stopped_.load()) return;
    TakePieces();
    if (SpinWhile(published_, published)) published_.wait(published);
  }
}

}  // namespace millstream::kernels
