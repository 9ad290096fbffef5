// SPDX-License-Identifier: Apache-2.0
// A child process for the tests of launched servers: their guard, or a server that does as its
// second argument says.
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>

#include "openai/server_guard.h"
#include "openai/testing.h"

namespace millstream {
namespace {

// Each row is answered once there has been a probe more, and probes once all rows are.
void WaitForProbes(const std::string& body) {
  static std::mutex mutex;
  static std::condition_variable changed;
  static int num_rows = 0, num_answered = 0, num_probes = 0;
  constexpr int kRows = 5;
  if (body.starts_with('/')) return;
  std::unique_lock lock(mutex);
  if (body == "probe") {
    ++num_probes;
    changed.notify_all();
    changed.wait(lock, [] { return num_answered == kRows; });
  } else {
    changed.wait(lock, [own = ++num_rows] { return num_probes >= own; });
    ++num_answered;
    changed.notify_all();
  }
}

int Serve(const std::string& how, std::uint16_t port) {
  if (how == "fails") {
    std::fputs("no such model\n", stderr);
    return 3;
  }
  if (how == "leaves-a-child") {
    const pid_t child = fork();
    if (child == 0) {
      setsid();  // not in the server's group
      while (true) pause();
    }
    std::ofstream("child") << child;
  }
  // Files in the folder that it runs in.
  const bool has_lived = how == "starts-badly-once" && mkdir("has-lived", 0777) != 0;
  const bool starts_badly = has_lived && mkdir("has-started-badly", 0777) == 0;
  const bool hangs = how == "hangs-once" && mkdir("has-hung", 0777) == 0;
  const StubServer server(
      [&](const std::string& body) -> std::string {
        if (starts_badly) std::abort();
        if (how == "silent") WaitForProbes(body);
        if (how == "never-ready") return StubServer::Reply(503, "{}");
        if (body == "/health") return StubServer::Reply(how == "has-no-health" ? 404 : 200, "{}");
        if (body.starts_with('/')) return StubServer::Reply(200, "{}");
        if (hangs) raise(SIGSTOP);
        if (body.find("die") != body.npos) std::abort();
        return StubServer::Completion("re: " + std::to_string(body.size()));
      },
      port
  );
  std::puts("it serves");
  std::fflush(stdout);
  while (true) pause();
}

}  // namespace
}  // namespace millstream

int main(int argc, char** argv) {
  if (argc == 2) return millstream::GuardServer(argv[1]).ok() ? 0 : 1;
  return argc == 3 ? millstream::Serve(argv[1], static_cast<std::uint16_t>(std::atoi(argv[2]))) : 2;
}
