// SPDX-License-Identifier: Apache-2.0
#include "engine/frames.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "engine/wire.h"

namespace millstream {
namespace {

constexpr std::size_t kHead = 4;

}  // namespace

void AppendFrame(std::string_view frame, std::string& out) {
  MS_CHECK(frame.size() <= kMaxFrameBytes);  // records are far smaller
  WireWriter head;
  head.U32(static_cast<std::uint32_t>(frame.size()));
  out += head.Take();
  out += frame;
}

Status WriteFrame(int socket, std::string_view frame) {
  std::string bytes;
  AppendFrame(frame, bytes);
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t sent = send(socket, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return Status::IOError("socket: ", std::strerror(errno));
    if (sent > 0) rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return Status::OK();
}

FrameReader::Arrival FrameReader::Receive(bool wait) {
  char buffer[1 << 16];
  while (true) {
    const ssize_t size = recv(socket_, buffer, sizeof buffer, wait ? 0 : MSG_DONTWAIT);
    if (size > 0) {
      bytes_.append(buffer, static_cast<std::size_t>(size));
      return Arrival::kBytes;
    }
    if (size < 0 && errno == EINTR) continue;
    return size < 0 && errno == EAGAIN ? Arrival::kNothingYet : Arrival::kEnd;
  }
}

Result<std::optional<std::string>> FrameReader::Next() {
  const std::string_view rest = std::string_view(bytes_).substr(taken_);
  std::optional<std::string> frame;
  if (rest.size() >= kHead) {
    const std::size_t size = WireReader(rest.substr(0, kHead)).U32();
    if (size == 0 || size > kMaxFrameBytes) return Status::Invalid("a frame of ", size, " bytes");
    if (rest.size() - kHead >= size) {
      frame = rest.substr(kHead, size);
      taken_ += kHead + size;
    }
  }
  if (!frame) {
    bytes_.erase(0, taken_);
    taken_ = 0;
  }
  return frame;
}

}  // namespace millstream
