// SPDX-License-Identifier: Apache-2.0
// For bench/http: a server that answers every request as a chat completion after a fixed time, on
// one thread and as cheaply as it can. Prints its port; once its input ends, what it cost.
//
//     http_stub DELAY_MS
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "fmt/format.h"

namespace {

using Clock = std::chrono::steady_clock;

// The text between "[#" and "]" in the request comes back, so that answers can be told apart.
std::string AnswerTo(std::string_view request) {
  const std::size_t begin = std::min(request.find("[#"), request.size());
  const std::size_t end = std::min(request.find(']', begin), request.size());
  const std::string body = fmt::format(
      R"({{"id":"chatcmpl-9f2d41c07b","object":"chat.completion","created":1764000000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"The answer to {}] is: a noun that names a thing, an animal or a person."}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":42,"completion_tokens":19,"total_tokens":61}}}})",
      request.substr(begin, end - begin)
  );
  return fmt::format(
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
      body.size(),
      body
  );
}

// The first whole request of what was received; empty if there is none.
std::string_view FirstRequest(std::string_view received) {
  const std::size_t head = received.find("\r\n\r\n");
  if (head == received.npos) return {};
  std::size_t length = 0;
  for (const std::string_view name : {"\r\nContent-Length: ", "\r\ncontent-length: "}) {
    const std::size_t at = received.find(name);
    if (at >= head) continue;
    std::from_chars(received.data() + at + name.size(), received.data() + head, length);
  }
  const std::size_t size = head + 4 + length;
  return size <= received.size() ? received.substr(0, size) : std::string_view();
}

class Stub {
 public:
  explicit Stub(std::chrono::milliseconds delay) : delay_(delay), epoll_(epoll_create1(0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    MS_CHECK(bind(listener_, any, size) == 0 && listen(listener_, 1 << 14) == 0);
    MS_CHECK(getsockname(listener_, any, &size) == 0);
    fmt::print("{}\n", ntohs(address.sin_port));
    std::fflush(stdout);
    Watch(listener_);
    Watch(STDIN_FILENO);
  }

  void Serve() {
    std::vector<epoll_event> events(1024);
    for (;;) {
      const int count =
          epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), WaitTime());
      for (int i = 0; i < count; ++i) {
        const int file = events[static_cast<std::size_t>(i)].data.fd;
        if (file == STDIN_FILENO) return;
        if (file == listener_) {
          Accept();
        } else {
          Receive(file);
        }
      }
      AnswerDue();
    }
  }

  std::int64_t num_answered() const { return num_answered_; }
  std::size_t most_at_once() const { return most_at_once_; }

 private:
  struct Due {
    Clock::time_point at;
    int connection;
    std::string answer;
  };

  void Watch(int file) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = file;
    MS_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, file, &event) == 0);
  }

  void Accept() {
    for (;;) {
      const int connection = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
      if (connection < 0) return;
      const int on = 1;
      setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      received_.resize(std::max(received_.size(), static_cast<std::size_t>(connection) + 1));
      received_[static_cast<std::size_t>(connection)].clear();
      Watch(connection);
    }
  }

  // A client has one request at a time on a connection, and goes away only when it has its answer.
  void Receive(int connection) {
    char bytes[16384];
    const ssize_t count = recv(connection, bytes, sizeof(bytes), 0);
    if (count <= 0) {
      close(connection);
      return;
    }
    std::string& received = received_[static_cast<std::size_t>(connection)];
    received.append(bytes, static_cast<std::size_t>(count));
    const std::string_view request = FirstRequest(received);
    if (request.empty()) return;
    due_.push_back({Clock::now() + delay_, connection, AnswerTo(request)});
    received.erase(0, request.size());
    most_at_once_ = std::max(most_at_once_, due_.size());
  }

  void AnswerDue() {
    const auto now = Clock::now();
    while (!due_.empty() && due_.front().at <= now) {
      const Due& due = due_.front();
      (void)send(due.connection, due.answer.data(), due.answer.size(), MSG_NOSIGNAL);
      due_.pop_front();
      ++num_answered_;
    }
  }

  int WaitTime() const {
    if (due_.empty()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(due_.front().at - Clock::now());
    return std::max(static_cast<int>(left.count()), 0);
  }

  const std::chrono::milliseconds delay_;
  const int epoll_;
  const int listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  std::vector<std::string> received_;  // by connection
  std::deque<Due> due_;                // in the order of time, as all take equally long
  std::int64_t num_answered_ = 0;
  std::size_t most_at_once_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  Stub stub(std::chrono::milliseconds(argc > 1 ? std::atoi(argv[1]) : 0));
  stub.Serve();
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const double seconds = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  fmt::print(
      R"({{"answered": {}, "most_at_once": {}, "cpu_seconds": {:.3f}}})"
      "\n",
      stub.num_answered(),
      stub.most_at_once(),
      seconds
  );
}
