// SPDX-License-Identifier: Apache-2.0
// What the processes of a job on a cluster say to each other through those who carry it: the
// command that a person started, the job's coordinator, its workers. Carriers (python/millstream)
// read a frame's kind and its numbers, and pass the rest on as it is.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/status.h"
#include "job/job.h"

namespace millstream {

/// The first byte of a frame. What follows are little-endian numbers of 8 bytes, then bytes.
enum class ClusterFrame : std::uint8_t {
  // To the coordinator's process:
  kBegin = 1,   // whether it begins anew after one that died (1 byte), its name (32), a job
  kJoin = 2,    // number of the exchange, cores: what a new worker is to be told
  kReport = 3,  // number of the exchange, a worker's report (worker_wire.h)
  kDied = 4,    // worker, signal, exit code, whether its machine lacked memory; all 0: it is gone
  kDrain = 5,   // worker: its machine is about to go
  kStop = 6,    // whether what is begun may finish (1 byte)
  // From it:
  kReady = 7,   // JSON: what its workers need
  kAnswer = 8,  // number of the exchange, what the worker gets
  kShow = 9,    // what it is doing
  kSay = 10,    // something for a person
  kEnd = 11,    // how the job ended; the last
  // From the carrier, to the command:
  kFail = 12,  // exit code (1 byte), why; the last
};

/// What the coordinator of a job needs to run it as `options` say, wherever it is: paths are made
/// absolute, and the job file's text goes along.
std::string EncodeJob(const JobSpec& spec, const JobOptions& options);
Result<JobOptions> DecodeJob(std::string_view bytes);

/// What a monitor shows, and how a job ended.
std::string EncodeShown(const JobMonitor& monitor);
Status DecodeShown(std::string_view bytes, JobMonitor& monitor);
std::string EncodeEnd(const Result<JobReport>& report);
Result<JobReport> DecodeEnd(std::string_view bytes);
/// What a kFail says; never OK.
Status DecodeFailure(std::string_view bytes);

}  // namespace millstream
