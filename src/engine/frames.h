// SPDX-License-Identifier: Apache-2.0
// Messages between a process and the engine in its child, over a socket: a length, then bytes.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace millstream {

/// A longer frame is no frame.
inline constexpr std::size_t kMaxFrameBytes = std::size_t{256} << 20;

/// The first byte of a frame says what follows.
enum class FrameKind : std::uint8_t {
  // To the child:
  kSubmit,  // the request's id, the request
  kCancel,  // the request's id
  // From the child:
  kReady,   // room when nothing is open
  kReport,  // stats, then completions
  kFailed,  // whether for want of memory, message: the last frame
};
inline constexpr std::uint8_t kFrameKinds = 5;

/// Appends a frame's length and bytes.
void AppendFrame(std::string_view frame, std::string& out);

/// Writes a whole frame. Blocks.
Status WriteFrame(int socket, std::string_view frame);

/// Cuts what arrives into frames.
class FrameReader {
 public:
  explicit FrameReader(int socket) : socket_(socket) {}

  enum class Arrival { kBytes, kNothingYet, kEnd };
  /// Receives once. A failed socket counts as its end.
  Arrival Receive(bool wait);
  /// The next frame that is here in whole, or none. Invalid if its length is out of bounds.
  Result<std::optional<std::string>> Next();

 private:
  const int socket_;
  std::string bytes_;
  std::size_t taken_ = 0;
};

}  // namespace millstream
