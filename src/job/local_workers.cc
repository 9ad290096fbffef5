// SPDX-License-Identifier: Apache-2.0
#include "job/local_workers.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "engine/child_process.h"
#include "engine/frames.h"
#include "fmt/format.h"
#include "job/worker.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kTick{100};
// A worker that ends so soon, so often in a row, will not do better.
constexpr std::chrono::seconds kSoon{10};
constexpr int kSoonMax = 5;
// One that says nothing for so long, once it is at work, stands still.
constexpr std::chrono::seconds kSilenceMax{20};
constexpr std::chrono::seconds kEndTime{5};  // to write down what they have

struct Child {
  explicit Child(std::unique_ptr<ChildProcess> started)
      : process(std::move(started)), frames(process->socket()), since(Clock::now()) {}
  std::unique_ptr<ChildProcess> process;
  FrameReader frames;
  Clock::time_point since;
  std::optional<Clock::time_point> heard_at;
};

class LocalWorkers {
 public:
  LocalWorkers(Coordination& coordination, const PreparedJob& job, int count, const Say& say)
      : coordination_(coordination), job_(job), count_(count), say_(say) {}

  Status Run(std::stop_token drain, std::stop_token stop) {
    const Status ran = RunToEnd(std::move(drain), std::move(stop));
    if (!ran.ok()) Dismiss();
    return ran;
  }

 private:
  Status RunToEnd(std::stop_token drain, std::stop_token stop) {
    while (!coordination_.is_over()) {
      if (stop.stop_requested()) return Status::Cancelled("stopped on request");
      if (drain.stop_requested()) {
        coordination_.Drain();
        if (children_.empty()) return Status::Cancelled("stopped on request");
      }
      while (std::ssize(children_) < count_ && !drain.stop_requested()) MS_RETURN_NOT_OK(Start());
      MS_RETURN_NOT_OK(Serve());
      KillThoseThatStandStill();
      MS_RETURN_NOT_OK(coordination_.Expire(Clock::now()));
    }
    return Finish();
  }

  Status Start() {
    const std::int64_t number = coordination_.NewWorker();
    std::vector<std::string> command = WorkerCommand();
    command.push_back(job_.ledger->layout().output);
    command.push_back(std::to_string(job_.ledger->epoch()));
    command.push_back(std::to_string(number));
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    command.push_back(std::to_string(std::max(1, cores / count_)));
    MS_ASSIGN_OR_RETURN(auto process, ChildProcess::Spawn(command));
    children_.emplace(number, std::make_unique<Child>(std::move(process)));
    return Status::OK();
  }

  // Hears those who say something, or waits for a moment.
  Status Serve() {
    std::vector<pollfd> sockets;
    std::vector<std::int64_t> numbers;
    for (const auto& [number, child] : children_) {
      sockets.push_back({child->process->socket(), POLLIN, 0});
      numbers.push_back(number);
    }
    poll(sockets.data(), sockets.size(), static_cast<int>(kTick.count()));
    for (std::size_t i = 0; i < sockets.size(); ++i) {
      if (sockets[i].revents != 0) MS_RETURN_NOT_OK(Read(numbers[i]));
    }
    return Status::OK();
  }

  Status Read(std::int64_t number) {
    Child& child = *children_.at(number);
    const FrameReader::Arrival arrival = child.frames.Receive(/*wait=*/false);
    while (true) {
      MS_ASSIGN_OR_RETURN(const auto frame, child.frames.Next());
      if (!frame) break;
      child.heard_at = Clock::now();
      MS_ASSIGN_OR_RETURN(const std::string answer, coordination_.Hear(*frame, Clock::now()));
      // One that dies before it reads this is found at the socket's end.
      (void)WriteFrame(child.process->socket(), answer);
    }
    return arrival == FrameReader::Arrival::kEnd ? Bury(number) : Status::OK();
  }

  Status Bury(std::int64_t number) {
    const auto child = children_.extract(number);
    const ChildProcess::Exit exit = child.mapped()->process->Reap();
    const bool was_stopped = exit.code == static_cast<int>(ExitCode::kStopped);
    const bool ended_well = exit.signal == 0 && (exit.code == 0 || was_stopped);
    MS_RETURN_NOT_OK(coordination_.Die(number, /*may_be_a_row=*/!ended_well));
    if (ended_well) return Status::OK();
    const std::string how = exit.signal != 0 ? fmt::format("of signal {}", exit.signal)
                                             : fmt::format("with exit code {}", exit.code);
    say_(fmt::format("a worker died {}: another takes its place", how));
    const bool is_soon = Clock::now() - child.mapped()->since < kSoon;
    num_soon_ = is_soon ? num_soon_ + 1 : 0;
    if (num_soon_ < kSoonMax) return Status::OK();
    return EngineBroken(
        fmt::format("{} workers in a row died within seconds, the last {}", kSoonMax, how)
    );
  }

  void KillThoseThatStandStill() {
    for (const auto& [number, child] : children_) {
      if (!child->heard_at || Clock::now() - *child->heard_at < kSilenceMax) continue;
      child->process->Signal(SIGKILL);  // its socket's end is next
    }
  }

  // Nothing is left: they hear so, and leave.
  Status Finish() {
    const auto deadline = Clock::now() + kEndTime;
    while (!children_.empty() && Clock::now() < deadline) MS_RETURN_NOT_OK(Serve());
    return Status::OK();  // those that are left are killed
  }

  // Without their driver they make durable what they have, and end.
  void Dismiss() {
    for (const auto& [number, child] : children_) shutdown(child->process->socket(), SHUT_WR);
    const auto deadline = Clock::now() + kEndTime;
    for (auto& [number, child] : children_) {
      pollfd socket{child->process->socket(), 0, 0};
      while (Clock::now() < deadline && (socket.revents & (POLLHUP | POLLERR)) == 0) {
        poll(&socket, 1, static_cast<int>(kTick.count()));
      }
    }
    children_.clear();
  }

  Coordination& coordination_;
  const PreparedJob& job_;
  const int count_;
  const Say& say_;
  std::map<std::int64_t, std::unique_ptr<Child>> children_;
  int num_soon_ = 0;
};

Result<std::int64_t> Number(const std::string& text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return Status::Invalid("not a number: ", text);
  return number;
}

}  // namespace

std::vector<std::string> WorkerCommand() {
  return {"/proc/self/exe", "worker"};
}

Status HostWorker(
    Storage& storage,
    const std::vector<std::string>& arguments,
    const Say& say,
    std::stop_token stop
) {
  if (arguments.size() != 4)
    return Status::Invalid("a worker has an output, an epoch, a number and threads");
  WorkerOptions options;
  options.output = arguments[0];
  MS_ASSIGN_OR_RETURN(const std::int64_t epoch, Number(arguments[1]));
  options.epoch = static_cast<std::uint32_t>(epoch);
  MS_ASSIGN_OR_RETURN(options.number, Number(arguments[2]));
  MS_ASSIGN_OR_RETURN(const std::int64_t threads, Number(arguments[3]));
  options.threads = static_cast<int>(threads);
  FrameReader frames(kChildSocket);
  const Exchange exchange = [&frames](std::string_view report) -> Result<std::string> {
    MS_RETURN_NOT_OK(WriteFrame(kChildSocket, report));
    while (true) {
      MS_ASSIGN_OR_RETURN(auto frame, frames.Next());
      if (frame) return *std::move(frame);
      if (frames.Receive(/*wait=*/true) == FrameReader::Arrival::kEnd) {
        return Status::Cancelled("the driver of this worker is gone");
      }
    }
  };
  return RunWorker(storage, options, exchange, say, std::move(stop));
}

Status RunByLocalWorkers(
    Coordination& coordination,
    const PreparedJob& job,
    int count,
    const Say& say,
    std::stop_token drain,
    std::stop_token stop
) {
  return LocalWorkers(coordination, job, count, say).Run(std::move(drain), std::move(stop));
}

}  // namespace millstream
