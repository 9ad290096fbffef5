// SPDX-License-Identifier: Apache-2.0
// A persistent team of compute threads. The caller is one of them: it hands out a loop, works
// along, and returns when the whole loop is done. Idle threads spin for a moment, then sleep.
//
// Which thread runs a piece is left to chance, so a piece must compute the same wherever it runs.

#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace millstream::kernels {

class Team {
 public:
  /// Starts `threads` - 1 threads; the caller of For() is the last. REQUIRES: threads > 0.
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }

  /// Calls body(begin, end) for consecutive pieces of [0, count), `grain` long but for the last.
  /// What the caller wrote before is visible to the body, and what it wrote to the caller after.
  /// One caller at a time; the body must not throw.
  template <typename Body>
  void For(std::int64_t count, std::int64_t grain, const Body& body) {
    Run({&Call<Body>, &body, count, grain});
  }

  /// A grain that gives each thread about `pieces` turns.
  std::int64_t Grain(std::int64_t count, std::int64_t pieces = 4) const;

 private:
  struct Loop {
    void (*call)(const void* body, std::int64_t begin, std::int64_t end);
    const void* body;
    std::int64_t count;
    std::int64_t grain;
  };

  template <typename Body>
  static void Call(const void* body, std::int64_t begin, std::int64_t end) {
    (*static_cast<const Body*>(body))(begin, end);
  }

  void Run(const Loop& loop);
  void Work();
  void TakePieces();

  // What is to be done: a generation, how many pieces, and which is next, in one word, so that a
  // thread that wakes late can never take a piece of a loop that has ended. See team.cc.
  std::atomic<std::uint64_t> ticket_ = 0;
  Loop loop_ = {};                            // of the pieces in ticket_
  std::atomic<std::uint32_t> finished_ = 0;   // pieces of it
  std::atomic<std::uint32_t> published_ = 0;  // what idle threads sleep on
  std::atomic<bool> stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace millstream::kernels
