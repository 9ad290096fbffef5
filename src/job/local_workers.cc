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
#include "engine/flight_recorder.h"
#include "engine/frames.h"
#include "engine/machine.h"
#include "fmt/format.h"
#include "job/worker.h"
#include "job/worker_death.h"
#include "job/worker_wire.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{100};
// If so many in a row die before they are at work, more will not do better.
constexpr int kDeadStartsMax = 5;
constexpr std::chrono::seconds kEndTime{5};  // to write down what they have

struct Child {
  explicit Child(std::unique_ptr<ChildProcess> started)
      : process(std::move(started)), frames(process->socket()) {}
  std::unique_ptr<ChildProcess> process;
  FrameReader frames;
  std::int64_t oom_kills_before = OomKills();
  std::optional<Clock::time_point> heard_at;
};

class LocalWorkers {
 public:
  LocalWorkers(Coordination& coordination, const JobOptions& options, const Say& say)
      : coordination_(coordination), options_(options), say_(say) {}

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
      const auto now = Clock::now();  // before they are heard: this process may have stood still
      MS_RETURN_NOT_OK(Serve());
      KillThoseThatStandStill(now);
      coordination_.Show();
      MS_RETURN_NOT_OK(coordination_.Expire(now));
    }
    return Finish();
  }

  Status Start() {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const WorkerOptions worker =
        coordination_.NewWorker(options_, std::max(1, cores / options_.workers));
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
    const WorkerDeath death =
        DeathOf(child.mapped()->process->Reap(), OomKills() > child.mapped()->oom_kills_before);
    MS_RETURN_NOT_OK(coordination_.Die(number, death.may_be_a_row, death.how));
    if (death.how.empty()) return Status::OK();
    say_(fmt::format("a worker died ({}): another takes its place", death.how));
    if (child.mapped()->heard_at) {
      num_dead_starts_ = 0;
    } else if (death.may_be_a_row && ++num_dead_starts_ >= kDeadStartsMax) {
      return EngineBroken(fmt::format(
          "stopped: {} workers in a row died before they were at work (the last: {}): mend that "
          "and "
          "run the same command again; without --workers it may say more",
          num_dead_starts_,
          death.how
      ));
    }
    return Status::OK();
  }

  // A little later than their leases go to others.
  void KillThoseThatStandStill(Clock::time_point now) {
    for (const auto& [number, child] : children_) {
      if (!child->heard_at || now - *child->heard_at < options_.worker_silence * 4 / 3) continue;
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
  const JobOptions& options_;
  const Say& say_;
  std::map<std::int64_t, std::unique_ptr<Child>> children_;  // by their numbers
  int num_dead_starts_ = 0;                                  // in a row
};

}  // namespace

Status HostWorker(
    Storage& storage, const EngineMaker& make_engine, const Say& say, std::stop_token stop
) {
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
  MS_ASSIGN_OR_RETURN(WorkerOptions options, DecodeWorkerOptions(welcome));
  options.make_engine = make_engine;
  return RunWorker(storage, options, exchange, say, std::move(stop));
}

Status RunByLocalWorkers(
    Coordination& coordination,
    const PreparedJob& /*job*/,
    const JobOptions& options,
    const Say& say,
    std::stop_token stop
) {
  return LocalWorkers(coordination, options, say).Run(std::move(stop));
}

}  // namespace millstream
