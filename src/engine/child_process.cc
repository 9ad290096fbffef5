// SPDX-License-Identifier: Apache-2.0
#include "engine/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace millstream {
namespace {

// Above the numbers that the child's own descriptors get, so that none is overwritten by another.
constexpr int kLowest = 10;

Status Failed(const char* what) {
  return Status::IOError("cannot start an engine's process: ", what, ": ", std::strerror(errno));
}

int Raise(int fd) {
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, kLowest);
  close(fd);
  return high;
}

// As `posix_spawn`, and returns what it does.
int SpawnWith(const std::vector<std::string>& command, int socket, int record, pid_t* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, socket, kChildSocket);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, record, kChildRecord);
  posix_spawn_file_actions_addclosefrom_np(&actions, kChildRecord + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP
  );
  std::vector<char*> arguments;
  arguments.reserve(command.size() + 1);
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const int error =
      posix_spawn(pid, command.front().c_str(), &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::Spawn(const std::vector<std::string>& command) {
  MS_CHECK(!command.empty());
  std::unique_ptr<ChildProcess> child(new ChildProcess());
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return Failed("socketpair");
  child->socket_ = ends[0];
  const int other_end = Raise(ends[1]);
  const int record = memfd_create("flight", MFD_CLOEXEC);
  child->record_ = record < 0 ? record : Raise(record);
  if (other_end < 0 || child->record_ < 0) {
    if (other_end >= 0) close(other_end);
    return Failed("descriptors");
  }
  const int error = SpawnWith(command, other_end, child->record_, &child->pid_);
  close(other_end);
  if (error != 0) {
    child->pid_ = -1;
    errno = error;
    return Failed(command.front().c_str());
  }
  return child;
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) Reap();
  if (socket_ >= 0) close(socket_);
  if (record_ >= 0) close(record_);
}

void ChildProcess::Signal(int number) const {
  if (pid_ > 0) kill(pid_, number);
}

ChildProcess::Exit ChildProcess::Reap() {
  MS_CHECK(pid_ > 0);
  kill(pid_, SIGKILL);  // changes nothing for one that has ended
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  pid_ = -1;
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status)};
  return {.code = WEXITSTATUS(status)};
}

FlightRecord ChildProcess::Record() const {
  return FlightRecorder::Read("/proc/self/fd/" + std::to_string(record_)).ValueOr(FlightRecord{});
}

}  // namespace millstream
