// SPDX-License-Identifier: Apache-2.0
#include "openai/testing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "fmt/format.h"

namespace millstream {

StubServer::StubServer(Answer answer, std::uint16_t port) : answer_(std::move(answer)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int reuse = 1;  // a port of a server that was here before
  (void)setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
  sockaddr_in address{};
  address.sin_port = htons(port);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  MS_CHECK(listener_ >= 0 && bind(listener_, any, size) == 0 && listen(listener_, 1024) == 0);
  MS_CHECK(getsockname(listener_, any, &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_.Spawn([this](std::stop_token stop) { return Accept(std::move(stop)); });
}

StubServer::~StubServer() {
  acceptor_.RequestStop();
  shutdown(listener_, SHUT_RDWR);
  (void)acceptor_.Join();
  close(listener_);
  {
    MutexLock lock(mutex_);
    for (const int connection : connections_) shutdown(connection, SHUT_RDWR);
  }
  (void)threads_.Join();
}

std::string StubServer::url() const {
  return fmt::format("http://127.0.0.1:{}/v1", port_);
}

Status StubServer::Accept(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    {
      MutexLock lock(mutex_);
      connections_.push_back(connection);
    }
    threads_.Spawn([this, connection](const std::stop_token&) { return Serve(connection); });
  }
  return Status::OK();
}

// Requests one after the other, until the other side goes away.
Status StubServer::Serve(int connection) {
  std::string received;
  const auto receive = [&] {
    char bytes[4096];
    const ssize_t count = recv(connection, bytes, sizeof(bytes), 0);
    if (count > 0) received.append(bytes, static_cast<std::size_t>(count));
    return count > 0;
  };
  for (bool is_open = true; is_open;) {
    std::size_t head = received.npos;
    while ((head = received.find("\r\n\r\n")) == received.npos && is_open) is_open = receive();
    if (!is_open) break;
    constexpr std::string_view kLength = "Content-Length: ";
    std::size_t length = 0;
    const std::size_t at = received.find(kLength);
    if (at < head) {
      std::from_chars(received.data() + at + kLength.size(), received.data() + head, length);
    }
    const std::size_t end = head + 4 + length;
    while (received.size() < end && is_open) is_open = receive();
    if (!is_open) break;
    const bool is_get = received.starts_with("GET ");
    const std::string answer = answer_(
        is_get ? received.substr(4, received.find(' ', 4) - 4) : received.substr(head + 4, length)
    );
    received.erase(0, end);
    is_open = !answer.empty() && send(connection, answer.data(), answer.size(), MSG_NOSIGNAL) ==
                                     static_cast<ssize_t>(answer.size());
  }
  MutexLock lock(mutex_);
  std::erase(connections_, connection);
  close(connection);
  return Status::OK();
}

std::string StubServer::Reply(int status, const std::string& body) {
  return fmt::format(
      "HTTP/1.1 {} Scripted\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body
  );
}

std::string StubServer::Completion(const std::string& text) {
  return Reply(
      200,
      fmt::format(
          R"({{"choices":[{{"message":{{"content":"{}"}},"finish_reason":"stop"}}]}})", text
      )
  );
}

}  // namespace millstream
