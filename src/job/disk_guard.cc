// SPDX-License-Identifier: Apache-2.0
#include "job/disk_guard.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "fmt/format.h"

namespace millstream {
namespace {

constexpr std::uint64_t kBallastMax = 64ULL << 20;
constexpr std::uint64_t kBallastShare = 20;  // of the file system, one of so many

double Megabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

}  // namespace

DiskGuard::DiskGuard(Storage& storage, DiskGuardOptions options, std::uint64_t ballast_bytes)
    : storage_(storage),
      options_(std::move(options)),
      ballast_bytes_(ballast_bytes),
      forward_drain_(options_.drain, ForwardStop{drain_}) {}

DiskGuard::~DiskGuard() {
  thread_.RequestStop();
  (void)thread_.Join();
  Release();
}

Result<std::unique_ptr<DiskGuard>> DiskGuard::Start(
    Storage& storage, DiskGuardOptions options, const std::function<void(const std::string&)>& say
) {
  MS_ASSIGN_OR_RETURN(const DiskSpace space, storage.Space(options.folder));
  if (!space.caution.empty()) say(fmt::format("{}: {}", options.output, space.caution));
  const bool has_end = space.total_bytes < std::numeric_limits<std::uint64_t>::max();
  // A file system may not tell its size.
  const std::uint64_t ballast =
      has_end ? std::min(kBallastMax, space.total_bytes / kBallastShare) : 0;
  std::unique_ptr<DiskGuard> guard(new DiskGuard(storage, std::move(options), ballast));
  if (ballast == 0) return guard;
  MS_RETURN_NOT_OK(storage.Reserve(guard->options_.ballast, ballast));
  guard->Look();
  guard->thread_.Spawn([self = guard.get()](std::stop_token stop) {
    return self->Watch(std::move(stop));
  });
  return guard;
}

void DiskGuard::Look() {
  if (ballast_bytes_ == 0) return;
  const auto space = storage_.Space(options_.folder);
  if (!space.ok()) return;  // the next look may tell
  const auto in_flight = static_cast<std::uint64_t>(std::max<std::int64_t>(
      0, options_.bytes_in_flight == nullptr ? 0 : options_.bytes_in_flight->load()
  ));
  const std::uint64_t needed = 2 * in_flight + ballast_bytes_;
  if (space->free_bytes >= needed) return;
  {
    MutexLock lock(mutex_);
    if (is_short_) return;
    is_short_ = true;
    free_bytes_ = space->free_bytes;
    needed_bytes_ = needed;
  }
  drain_.request_stop();
}

bool DiskGuard::is_short() const {
  MutexLock lock(mutex_);
  return is_short_;
}

std::uint64_t DiskGuard::free_bytes() const {
  MutexLock lock(mutex_);
  return free_bytes_;
}

std::string DiskGuard::Describe() const {
  MutexLock lock(mutex_);
  return fmt::format(
      "the disk under {} has {:.1f} MB left, less than the {:.1f} MB that the rows under way may "
      "need: make room and run the same command again, it goes on where it stopped",
      options_.output,
      Megabytes(free_bytes_),
      Megabytes(needed_bytes_)
  );
}

void DiskGuard::Release() {
  // What cannot be removed now goes with the next driver's tmp/.
  if (ballast_bytes_ > 0) (void)storage_.Remove(options_.ballast);
}

Status DiskGuard::Watch(std::stop_token stop) {
  while (!stop.stop_requested() && !is_short()) {
    {
      MutexLock lock(mutex_);
      changed_.wait_for(lock, stop, options_.interval, [] { return false; });
    }
    if (!stop.stop_requested()) Look();
  }
  return Status::OK();
}

}  // namespace millstream
