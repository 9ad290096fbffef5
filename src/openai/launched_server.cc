// SPDX-License-Identifier: Apache-2.0
#include "openai/launched_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/utf8.h"
#include "engine/flight_recorder.h"
#include "fmt/format.h"
#include "openai/server_guard.h"

namespace millstream {
namespace {

constexpr std::chrono::milliseconds kEndWait{8000};  // more than a guard takes
constexpr std::streamoff kTailBytes = 2000;

Result<int> FreePort() {
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool is_bound =
      probe >= 0 && bind(probe, any, size) == 0 && getsockname(probe, any, &size) == 0;
  const int error = errno;
  if (probe >= 0) close(probe);
  if (!is_bound) return Status::IOError("there is no free port: ", std::strerror(error));
  return ntohs(address.sin_port);
}

std::string WithPort(std::string word, int port) {
  constexpr std::string_view kPlace = "{port}";
  for (std::size_t at = 0; (at = word.find(kPlace, at)) != word.npos;) {
    word.replace(at, kPlace.size(), std::to_string(port));
  }
  return word;
}

// What a guard says, in words.
std::string Describe(const std::string& said) {
  constexpr std::string_view kKilled = "killed ", kExited = "exited ", kNot = "not started ";
  if (said.starts_with(kExited)) return "exit code " + said.substr(kExited.size());
  if (said.starts_with(kNot)) return "it cannot be started: " + said.substr(kNot.size());
  int signal = 0;
  if (said.starts_with(kKilled)) {
    std::from_chars(said.data() + kKilled.size(), said.data() + said.size(), signal);
    return SignalName(signal);
  }
  return "the process that watches it was killed";
}

}  // namespace

Result<std::unique_ptr<LaunchedServer>> LaunchedServer::Start(const LaunchOptions& options) {
  MS_ASSIGN_OR_RETURN(const int port, FreePort());
  std::unique_ptr<LaunchedServer> server(new LaunchedServer(options, port));
  GuardedServer guarded{{}, options.folder, options.log, options.secret_variables};
  for (const std::string& word : options.command) guarded.command.push_back(WithPort(word, port));
  std::vector<std::string> command = options.guard;
  command.push_back(GuardArgument(guarded));
  MS_ASSIGN_OR_RETURN(server->guard_, ChildProcess::Spawn(command));
  return server;
}

LaunchedServer::~LaunchedServer() {
  if (!guard_ || !death_.empty()) return;
  const char order = static_cast<char>(GuardOrder::kEnd);
  (void)!send(guard_->socket(), &order, 1, MSG_NOSIGNAL);
  const auto deadline = std::chrono::steady_clock::now() + kEndWait;
  while (death_.empty()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left.count() <= 0) return;  // the guard goes, and the server with it
    if (Receive(std::chrono::ceil<std::chrono::milliseconds>(left))) death_ = Describe(said_);
  }
}

std::string LaunchedServer::root_url() const {
  return fmt::format("http://127.0.0.1:{}", port_);
}

// Returns whether the guard has ended.
bool LaunchedServer::Receive(std::chrono::milliseconds at_most) {
  pollfd file{guard_->socket(), POLLIN, 0};
  if (poll(&file, 1, static_cast<int>(at_most.count())) <= 0) return false;
  char bytes[256];
  const ssize_t count = recv(guard_->socket(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (count > 0) said_.append(bytes, static_cast<std::size_t>(count));
  return count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR);
}

bool LaunchedServer::HasDied() {
  if (death_.empty() && Receive(std::chrono::milliseconds(0))) death_ = Describe(said_);
  return !death_.empty();
}

void LaunchedServer::Kill() {
  const char order = static_cast<char>(GuardOrder::kKill);
  (void)!send(guard_->socket(), &order, 1, MSG_NOSIGNAL);
}

std::string LaunchedServer::LogTail() const {
  std::ifstream file(options_.log, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : 0;
  file.seekg(std::max<std::streamoff>(size - kTailBytes, 0));
  std::string tail(std::istreambuf_iterator<char>(file), {});
  if (size > kTailBytes) tail.erase(0, tail.find('\n') + 1);
  while (!tail.empty() && (tail.back() == '\n' || tail.back() == '\r')) tail.pop_back();
  return IsValidUtf8(tail) ? tail : "(its log is no text)";
}

}  // namespace millstream
