// SPDX-License-Identifier: Apache-2.0
#include "job/local_workers.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/child_process.h"
#include "engine/frames.h"
#include "fmt/format.h"
#include "job/worker.h"
#include "job/worker_wire.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{100};
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
  LocalWorkers(
      Coordination& coordination, const PreparedJob& job, const JobOptions& options, const Say& say
  )
      : coordination_(coordination), job_(job), options_(options), say_(say) {}

  Status Run(std::stop_token stop) {
    const Status ran = RunToEnd(std::move(stop));
    if (!ran.ok()) Dismiss();
    return ran;
  }

 private:
  Status RunToEnd(std::stop_token stop) {
    while (!coordination_.is_over()) {
      const bool drains = options_.drain.stop_requested();
      if (drains) coordination_.Drain();
      if (stop.stop_requested() || (drains && children_.empty())) {
        return Status::Cancelled("stopped on request");
      }
      while (std::ssize(children_) < options_.workers && !drains) MS_RETURN_NOT_OK(Start());
      MS_RETURN_NOT_OK(Serve());
      KillThoseThatStandStill();
      MS_RETURN_NOT_OK(coordination_.Expire(Clock::now()));
    }
    return Finish();
  }

  Status Start() {
    WorkerOptions worker;
    worker.job.file = job_.spec.file;
    worker.job.text = job_.spec.text;
    worker.job.overrides = options_.overrides;
    worker.epoch = job_.ledger->epoch();
    worker.number = coordination_.NewWorker();
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    worker.threads = std::max(1, cores / options_.workers);
    MS_ASSIGN_OR_RETURN(auto process, ChildProcess::Spawn({"/proc/self/exe", "worker"}));
    // One that dies before it reads this is found at the socket's end.
    (void)WriteFrame(process->socket(), Encode(worker));
    children_.emplace(worker.number, std::make_unique<Child>(std::move(process)));
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
    for (const auto& [number, child] : children_) {
      pollfd socket{child->process->socket(), 0, 0};
      while (Clock::now() < deadline && (socket.revents & (POLLHUP | POLLERR)) == 0) {
        poll(&socket, 1, static_cast<int>(kTick.count()));
      }
    }
    children_.clear();
  }

  Coordination& coordination_;
  const PreparedJob& job_;
  const JobOptions& options_;
  const Say& say_;
  std::map<std::int64_t, std::unique_ptr<Child>> children_;  // by their numbers
  int num_soon_ = 0;
};

}  // namespace

Status HostWorker(Storage& storage, const Say& say, std::stop_token stop) {
  FrameReader frames(kChildSocket);
  const auto receive = [&frames]() -> Result<std::string> {
    while (true) {
      MS_ASSIGN_OR_RETURN(auto frame, frames.Next());
      if (frame) return *std::move(frame);
      if (frames.Receive(/*wait=*/true) == FrameReader::Arrival::kEnd) {
        return Status::Cancelled("the driver of this worker is gone");
      }
    }
  };
  const Exchange exchange = [&receive](std::string_view report) -> Result<std::string> {
    MS_RETURN_NOT_OK(WriteFrame(kChildSocket, report));
    return receive();
  };
  MS_ASSIGN_OR_RETURN(const std::string welcome, receive());
  MS_ASSIGN_OR_RETURN(const WorkerOptions options, DecodeWorkerOptions(welcome));
  return RunWorker(storage, options, exchange, say, std::move(stop));
}

Status RunByLocalWorkers(
    Coordination& coordination,
    const PreparedJob& job,
    const JobOptions& options,
    const Say& say,
    std::stop_token stop
) {
  return LocalWorkers(coordination, job, options, say).Run(std::move(stop));
}

}  // namespace millstream
