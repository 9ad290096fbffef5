// SPDX-License-Identifier: Apache-2.0
#include "openai/server_guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/child_process.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "openai/servers.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr std::uint64_t kLogBytes = 4 << 20;  // and as much of what came before
constexpr std::size_t kLineBytes = 64 << 10;
constexpr std::chrono::milliseconds kGrace{5000};
constexpr int kLookMs = 100;  // how often it is looked after, where the kernel has no pidfd

// Written by this process, so that it has a bound, shows no keys, and a full disk costs the server
// nothing.
class ServerLog {
 public:
  ServerLog(std::string path, ServerAccess access)
      : path_(std::move(path)), access_(std::move(access)) {
    Open();
  }
  ~ServerLog() { Close(); }
  ServerLog(const ServerLog&) = delete;
  ServerLog& operator=(const ServerLog&) = delete;

  void Add(std::string_view bytes) {
    pending_ += bytes;
    const std::size_t end = pending_.rfind('\n');  // a key has no line's end in it
    if (end != pending_.npos) Write(end + 1);
    if (pending_.size() > kLineBytes) Flush();
  }
  void Flush() { Write(pending_.size()); }

 private:
  void Write(std::size_t count) {
    const std::string lines = access_.Redacted(pending_.substr(0, count));
    pending_.erase(0, count);
    if (size_ + lines.size() > kLogBytes) {
      Close();
      (void)std::rename(path_.c_str(), (path_ + ".1").c_str());
      Open();
    }
    size_ += lines.size();
    if (fd_ >= 0) (void)!write(fd_, lines.data(), lines.size());
  }
  void Open() {
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    const off_t end = fd_ < 0 ? 0 : lseek(fd_, 0, SEEK_END);
    size_ = end < 0 ? 0 : static_cast<std::uint64_t>(end);
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  const std::string path_;
  const ServerAccess access_;  // its secrets
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::string pending_;  // of a line
};

struct Started {
  pid_t pid = -1;
  int output = -1;  // what it prints
  int error = 0;    // of its start
};

// In the child of a process that may have other threads: nothing but system calls.
[[noreturn]] void BecomeServer(char* const* arguments, const char* folder, int output, int failed) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < NSIG; ++number) (void)std::signal(number, SIG_DFL);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  if (chdir(folder) == 0) execvp(arguments[0], arguments);
  const int error = errno;
  (void)!write(failed, &error, sizeof error);
  _exit(127);
}

Started Start(const GuardedServer& server) {
  Started started;
  int output[2], failed[2];
  if (pipe2(output, O_CLOEXEC) != 0) return {.error = errno};
  if (pipe2(failed, O_CLOEXEC) != 0) return {.error = errno};
  std::vector<char*> arguments;
  arguments.reserve(server.command.size() + 1);
  for (const std::string& word : server.command)
    arguments.push_back(const_cast<char*>(word.data()));
  arguments.push_back(nullptr);
  started.pid = fork();
  if (started.pid == 0) {
    BecomeServer(arguments.data(), server.folder.c_str(), output[1], failed[1]);
  }
  if (started.pid < 0) started.error = errno;
  close(output[1]);
  close(failed[1]);
  started.output = output[0];
  int error = 0;
  if (read(failed[0], &error, sizeof error) == static_cast<ssize_t>(sizeof error)) {
    started.error = error;
  }
  close(failed[0]);
  return started;
}

// Its group, and those of its descendants that left it: they became children of this process.
void SignalAll(pid_t server, int number) {
  kill(-server, number);
  std::ifstream children(fmt::format("/proc/self/task/{}/children", getpid()));
  for (pid_t child = 0; children >> child;) kill(child, number);
}

ServerAccess SecretsOf(const GuardedServer& server) {
  ServerAccess access;
  for (const std::string& variable : server.secret_variables) {
    const char* const value = std::getenv(variable.c_str());
    std::string secret = value == nullptr ? "" : value;
    secret.erase(secret.find_last_not_of(" \t\r\n") + 1);
    if (!secret.empty()) access.AddSecret(std::move(secret));
  }
  return access;
}

class Guard {
 public:
  explicit Guard(const GuardedServer& server)
      : log_(server.log, SecretsOf(server)), server_(Start(server)) {
    pidfd_ = server_.pid < 0 ? -1 : static_cast<int>(syscall(SYS_pidfd_open, server_.pid, 0));
  }

  // How the server ended. Nothing of it is left then.
  std::string Run() {
    while (!HasEnded()) {
      Wait();
      if (kill_at_ && Clock::now() >= *kill_at_) SignalAll(server_.pid, SIGKILL);
    }
    const int status = KillRest();
    Drain();
    log_.Flush();
    if (server_.error != 0) return fmt::format("not started {}", std::strerror(server_.error));
    if (WIFSIGNALED(status)) return fmt::format("killed {}", WTERMSIG(status));
    return fmt::format("exited {}", WEXITSTATUS(status));
  }
  bool has_child() const { return server_.pid > 0; }
  int error() const { return server_.error; }

 private:
  void Wait() {
    std::array<pollfd, 3> files{
        pollfd{is_told_ ? -1 : kChildSocket, POLLIN, 0},
        pollfd{server_.output, POLLIN, 0},
        pollfd{pidfd_, POLLIN, 0}
    };
    (void)poll(files.data(), files.size(), kill_at_ || pidfd_ < 0 ? kLookMs : -1);
    if (files[1].revents != 0) Read();
    if (files[0].revents != 0) TakeOrder();
  }

  // It keeps its number, which its group is named by, until KillRest() reaps it.
  bool HasEnded() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(server_.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == server_.pid;
  }

  // Returns the server's status.
  int KillRest() const {
    int status = 0, its = 0;
    while (true) {
      SignalAll(server_.pid, SIGKILL);
      const pid_t reaped = waitpid(-1, &status, 0);
      if (reaped == server_.pid) its = status;
      if (reaped < 0 && errno != EINTR) return its;
    }
  }

  void TakeOrder() {
    char order = static_cast<char>(GuardOrder::kKill);
    (void)!recv(kChildSocket, &order, 1, 0);
    if (order == static_cast<char>(GuardOrder::kEnd)) {
      SignalAll(server_.pid, SIGTERM);
      kill_at_ = Clock::now() + kGrace;
    } else {
      is_told_ = true;
      kill_at_ = Clock::now();
      SignalAll(server_.pid, SIGKILL);
    }
  }

  // Returns whether there may be more.
  bool Read() {
    std::array<char, 65536> bytes;
    const ssize_t count = read(server_.output, bytes.data(), bytes.size());
    if (count > 0) log_.Add({bytes.data(), static_cast<std::size_t>(count)});
    if (count == 0) server_.output = -1;  // it has closed it
    return count > 0;
  }

  void Drain() {
    if (server_.output < 0) return;
    (void)fcntl(server_.output, F_SETFL, O_NONBLOCK);
    while (Read()) continue;
  }

  ServerLog log_;
  Started server_;
  int pidfd_ = -1;
  bool is_told_ = false;  // to kill it
  std::optional<Clock::time_point> kill_at_;
};

}  // namespace

std::string GuardArgument(const GuardedServer& server) {
  const Json json = {
      {"command", server.command},
      {"folder", server.folder},
      {"log", server.log},
      {"secret_variables", server.secret_variables}
  };
  return json.dump(-1, ' ', false, Json::error_handler_t::ignore);
}

Status GuardServer(const std::string& argument) {
  GuardedServer server;
  const Json json = Json::parse(argument, nullptr, /*allow_exceptions=*/false);
  try {
    server = {json.at("command"), json.at("folder"), json.at("log"), json.at("secret_variables")};
  } catch (const Json::exception&) {
    return Status::Invalid("server-guard is what `launch:` starts, and not for people");
  }
  (void)fcntl(kChildSocket, F_SETFD, FD_CLOEXEC);
  close(kChildRecord);  // a guard has no flights to record
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_DUMPABLE, 0);  // keys are in its environment
  Guard guard(server);
  const std::string end =
      guard.has_child() ? guard.Run() : fmt::format("not started {}", std::strerror(guard.error()));
  (void)!send(kChildSocket, end.data(), end.size(), MSG_NOSIGNAL);
  return Status::OK();
}

}  // namespace millstream
