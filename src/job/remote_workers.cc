// SPDX-License-Identifier: Apache-2.0
#include "job/remote_workers.h"

#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/compact_json.h"
#include "base/mutex.h"
#include "engine/child_process.h"
#include "engine/frames.h"
#include "engine/wire.h"
#include "fmt/format.h"
#include "job/cluster_wire.h"
#include "job/coordination.h"
#include "job/execute.h"
#include "job/worker.h"
#include "job/worker_death.h"
#include "job/worker_wire.h"

namespace millstream {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::milliseconds kShowInterval{500};
constexpr std::size_t kNameSize = 32;
constexpr std::chrono::seconds kEndTime{20};  // for workers to make durable what they have

struct Frame {
  ClusterFrame kind{};
  std::string body;
};

std::string BytesOf(ClusterFrame kind, std::string_view body) {
  std::string bytes(1, static_cast<char>(kind));
  bytes += body;
  return bytes;
}

// The socket to the carrier: what comes is read on a thread of its own. Thread-safe.
class Carrier {
 public:
  explicit Carrier(int socket) : socket_(socket), reader_([this] { Read(); }) {}
  ~Carrier() { shutdown(socket_, SHUT_RD); }
  Carrier(const Carrier&) = delete;
  Carrier& operator=(const Carrier&) = delete;

  void Send(ClusterFrame kind, std::string_view body) {
    MutexLock lock(send_mutex_);
    (void)WriteFrame(socket_, BytesOf(kind, body));  // its end is found by the reader
  }
  void Answer(std::uint64_t exchange, std::string_view body) {
    WireWriter out;
    out.U64(exchange);
    Send(ClusterFrame::kAnswer, out.Take() + std::string(body));
  }
  /// The next frame, or none after `wait`.
  std::optional<Frame> Next(std::chrono::milliseconds wait) {
    MutexLock lock(mutex_);
    if (frames_.empty() && !is_gone_) changed_.wait_for(lock, wait);
    if (frames_.empty()) return std::nullopt;
    Frame frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }
  bool is_gone() const {
    MutexLock lock(mutex_);
    return is_gone_ && frames_.empty();
  }
  /// Requested by kStop, and by the carrier's end.
  std::stop_token stop() const { return stop_.get_token(); }
  /// Requested by a kStop that lets what is begun finish.
  std::stop_token drain() const { return drain_.get_token(); }

 private:
  void Read() {
    FrameReader reader(socket_);
    while (reader.Receive(/*wait=*/true) != FrameReader::Arrival::kEnd) {
      while (true) {
        auto bytes = reader.Next();
        if (!bytes.ok() || !*bytes) break;
        if (!(*bytes)->empty()) Take(**bytes);
      }
    }
    stop_.request_stop();
    MutexLock lock(mutex_);
    is_gone_ = true;
    changed_.notify_all();
  }

  void Take(const std::string& bytes) {
    Frame frame{static_cast<ClusterFrame>(bytes[0]), bytes.substr(1)};
    if (frame.kind == ClusterFrame::kStop) {  // also while nobody waits for a frame
      const bool may_finish = frame.body == std::string_view("\1", 1);
      (may_finish ? drain_ : stop_).request_stop();
      return;
    }
    MutexLock lock(mutex_);
    frames_.push_back(std::move(frame));
    changed_.notify_all();
  }

  const int socket_;
  std::stop_source stop_, drain_;
  Mutex send_mutex_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Frame> frames_ MS_GUARDED_BY(mutex_);
  bool is_gone_ MS_GUARDED_BY(mutex_) = false;
  std::jthread reader_;  // ends with the socket
};

// What a worker of the job needs of its machine.
std::string NeedsOf(const PreparedJob& job) {
  constexpr std::uint64_t kRowsAndProgram = std::uint64_t{1} << 30;
  const ResourcesSpec& given = job.spec.resources;
  std::uint64_t memory = kRowsAndProgram;
  bool only_asks_servers = !job.models.empty();
  for (const auto& [key, spec] : job.model_specs) {
    only_asks_servers = only_asks_servers && !spec.is_native && spec.launch.empty();
    if (!spec.is_native) continue;
    memory += job.models.at(key).model->checkpoint->size_bytes + spec.memory_bytes.value_or(0);
  }
  Json needs = {
      {"gpus", given.gpus},
      {"memory", given.memory_bytes.value_or(memory)},
      {"min_workers", given.min_workers},
      {"labels", given.labels}
  };
  if (given.cpus) needs["cpus"] = *given.cpus;
  if (given.max_workers) {
    needs["max_workers"] = *given.max_workers;
  } else if (only_asks_servers) {
    needs["max_workers"] = given.min_workers;  // one feeds servers with thousands of rows a second
  }
  return CompactJson(needs);
}

class RemoteWorkers {
 public:
  RemoteWorkers(
      Carrier& carrier,
      Coordination& coordination,
      const PreparedJob& job,
      const JobOptions& options,
      const JobMonitor& monitor
  )
      : carrier_(carrier),
        coordination_(coordination),
        job_(job),
        options_(options),
        monitor_(monitor) {}

  Status Run(std::stop_token stop) {
    carrier_.Send(ClusterFrame::kReady, NeedsOf(job_));
    while (!coordination_.is_over()) {
      if (options_.drain.stop_requested()) coordination_.Drain();
      if (stop.stop_requested()) return Stop();
      MS_RETURN_NOT_OK(Serve());
      if (options_.drain.stop_requested() && coordination_.num_workers() == 0) {
        return Status::Cancelled("stopped on request");
      }
    }
    return Status::OK();
  }

 private:
  // Workers cut short what they have, make it durable, and leave.
  Status Stop() {
    coordination_.Stop();
    const auto deadline = Clock::now() + kEndTime;
    while (coordination_.num_workers() > 0 && Clock::now() < deadline && !carrier_.is_gone()) {
      MS_RETURN_NOT_OK(Serve());
    }
    return Status::Cancelled("stopped on request");
  }

  Status Serve() {
    if (carrier_.is_gone()) return Status::IOError("those who carry this job's messages are gone");
    const auto now = Clock::now();  // what has come by now is heard before anyone is taken for dead
    auto frame = carrier_.Next(kTick);
    for (; frame; frame = carrier_.Next({})) MS_RETURN_NOT_OK(Take(*frame));
    MS_RETURN_NOT_OK(coordination_.Expire(now));
    if (now - shown_at_ >= kShowInterval) {
      shown_at_ = now;
      coordination_.Show();
      carrier_.Send(ClusterFrame::kShow, EncodeShown(monitor_));
    }
    return Status::OK();
  }

  Status Take(const Frame& frame) {
    WireReader in(frame.body);
    switch (frame.kind) {
      case ClusterFrame::kJoin: {
        const std::uint64_t exchange = in.U64();
        carrier_.Answer(exchange, Welcome(static_cast<int>(in.I64())));
        return Status::OK();
      }
      case ClusterFrame::kReport: {
        const std::uint64_t exchange = in.U64();
        const std::string_view report = std::string_view(frame.body).substr(sizeof exchange);
        MS_ASSIGN_OR_RETURN(const std::string answer, coordination_.Hear(report, Clock::now()));
        carrier_.Answer(exchange, answer);
        return Status::OK();
      }
      case ClusterFrame::kDied: {
        const std::int64_t worker = in.I64();
        ChildProcess::Exit exit;
        exit.signal = static_cast<int>(in.I64());
        exit.code = static_cast<int>(in.I64());
        const WorkerDeath death = DeathOf(exit, /*for_want_of_memory=*/in.I64() != 0);
        return coordination_.Die(worker, death.may_be_a_row, death.how);
      }
      case ClusterFrame::kDrain:
        coordination_.Drain(in.I64());
        return Status::OK();
      default:
        return Status::OK();
    }
  }

  std::string Welcome(int threads) {
    const WorkerOptions worker = coordination_.NewWorker(options_, threads);
    WireWriter out;
    out.I64(worker.number);
    return out.Take() + Encode(worker);
  }

  Carrier& carrier_;
  Coordination& coordination_;
  const PreparedJob& job_;
  const JobOptions& options_;
  const JobMonitor& monitor_;
  Clock::time_point shown_at_{};
};

}  // namespace

Status HostCoordinator(Storage& storage) {
  Carrier carrier(kChildSocket);
  std::optional<Frame> begin;
  while (!begin && !carrier.is_gone()) begin = carrier.Next(kTick);
  if (!begin || begin->kind != ClusterFrame::kBegin || begin->body.size() < 1 + kNameSize) {
    return Status::Invalid("no job came to run");
  }
  const Say say = [&carrier](const std::string& text) { carrier.Send(ClusterFrame::kSay, text); };
  JobMonitor monitor;
  const auto run = [&]() -> Result<JobReport> {
    const std::string_view body = begin->body;
    MS_ASSIGN_OR_RETURN(JobOptions options, DecodeJob(body.substr(1 + kNameSize)));
    options.coordinator = body.substr(1, kNameSize);
    options.begins_anew = body[0] != 0;
    if (options.begins_anew) options.restart = false;  // the one that died has done so
    options.drain = carrier.drain();
    options.run_workers = [&](Coordination& coordination,
                              const PreparedJob& job,
                              const JobOptions& guarded,
                              const Say&,
                              std::stop_token stop) {
      return RemoteWorkers(carrier, coordination, job, guarded, monitor).Run(std::move(stop));
    };
    return RunJob(storage, options, monitor, say, carrier.stop());
  };
  carrier.Send(ClusterFrame::kEnd, EncodeEnd(run()));
  return Status::OK();
}

Result<JobReport> RunOnCluster(
    const ClusterOptions& cluster,
    const JobOptions& options,
    JobMonitor& monitor,
    const Say& say,
    std::stop_token stop
) {
  // What is wrong with the job file is found before anything is asked of a cluster.
  MS_ASSIGN_OR_RETURN(const JobSpec spec, ParseJobFile(options.file, options.overrides));
  MS_ASSIGN_OR_RETURN(const OutputLayout layout, OutputLayoutOf(spec));
  Json settings = cluster.settings;
  settings["output"] = layout.output;
  settings["coordinator"] = spec.resources.coordinator;
  const std::string job = EncodeJob(spec, options);
  MS_ASSIGN_OR_RETURN(const auto process, ChildProcess::Spawn(cluster.carrier));
  MS_RETURN_NOT_OK(WriteFrame(process->socket(), CompactJson(settings)));
  MS_RETURN_NOT_OK(WriteFrame(process->socket(), job));
  Carrier carrier(process->socket());
  bool drains = false, stops = false, is_attached = false;
  while (true) {
    if (cluster.detaches && (stop.stop_requested() || options.drain.stop_requested())) {
      return Status::Cancelled(
          is_attached ? "the job goes on without this command; run it again to look at it"
                      : "stopped before the job had begun on the cluster"
      );
    }
    if (options.drain.stop_requested() && !std::exchange(drains, true)) {
      carrier.Send(ClusterFrame::kStop, std::string_view("\1", 1));
    }
    if (stop.stop_requested() && !std::exchange(stops, true)) {
      carrier.Send(ClusterFrame::kStop, std::string_view("\0", 1));
    }
    const auto frame = carrier.Next(kTick);
    if (!frame && carrier.is_gone()) {
      return Status::IOError(
          "the process that talks to the cluster has ended without a word of the job's end; run "
          "this "
          "again"
      );
    }
    if (!frame) continue;
    is_attached = true;
    switch (frame->kind) {
      case ClusterFrame::kShow:
        MS_RETURN_NOT_OK(DecodeShown(frame->body, monitor));
        break;
      case ClusterFrame::kSay:
        say(frame->body);
        break;
      case ClusterFrame::kEnd:
        return DecodeEnd(frame->body);
      case ClusterFrame::kFail:
        return DecodeFailure(frame->body);
      default:
        break;
    }
  }
}

}  // namespace millstream
