// SPDX-License-Identifier: Apache-2.0
#include "engine/flight_recorder.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>

#include "base/check.h"

namespace millstream {
namespace {

constexpr char kMagic[8] = {'m', 's', 'f', 'l', 'i', 'g', 'h', 't'};
constexpr std::uint32_t kVersion = 1;
enum SlotState : std::uint32_t { kFree, kInFlight, kSuspect };

}  // namespace

struct FlightRecorder::Slot {
  std::atomic<std::uint32_t> state;  // written last
  std::uint32_t name_size = 0;
  std::uint64_t high = 0, low = 0;
  char name[kNameBytes + 4] = {};
};

struct FlightRecorder::Layout {
  char magic[8] = {};  // written last: before that it is no record
  std::uint32_t version = kVersion;
  std::atomic<std::uint32_t> cause;
  std::atomic<std::uint32_t> signal;
  std::uint32_t unused = 0;
  std::atomic<std::uint64_t> stack_hash;
  Slot slots[kCapacity];
};

namespace {

constexpr std::array kFatal = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

// What the handler writes to. Pointers into the mapped file, so that it needs nothing else.
struct CrashSite {
  std::atomic<std::uint32_t>* cause = nullptr;
  std::atomic<std::uint32_t>* signal = nullptr;
  std::atomic<std::uint64_t>* stack_hash = nullptr;
};
CrashSite crash_site;
std::atomic<bool> is_catching = false;
std::array<struct sigaction, kFatal.size()> previous_actions;

// A hash of where the stack's frames lie in their modules: the same for the same crash in another
// process. Both calls are safe in a handler once libgcc is loaded: its unwinder finds frames by
// _dl_find_object, which takes no lock.
std::uint64_t StackHash() {
  std::array<void*, 32> frames{};
  const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
  std::uint64_t hash = 14695981039346656037U;  // FNV-1a
  for (int i = 0; i < count; ++i) {
    void* const frame = frames[static_cast<std::size_t>(i)];
    dl_find_object module{};
    const auto base = _dl_find_object(frame, &module) == 0
                          ? reinterpret_cast<std::uintptr_t>(module.dlfo_map_start)
                          : 0;
    std::uint64_t offset = reinterpret_cast<std::uintptr_t>(frame) - base;
    for (int byte = 0; byte < 8; ++byte, offset >>= 8) {
      hash = (hash ^ (offset & 255)) * 1099511628211U;
    }
  }
  return hash;
}

void OnFatalSignal(int number, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  const bool from_outside = info->si_code == SI_USER && info->si_pid != getpid();
  auto none = static_cast<std::uint32_t>(FlightCause::kNone);
  if (is_catching.load() && !from_outside &&
      crash_site.cause->compare_exchange_strong(
          none, static_cast<std::uint32_t>(FlightCause::kSignal)
      )) {
    crash_site.signal->store(static_cast<std::uint32_t>(number));
    crash_site.stack_hash->store(StackHash());
  }
  for (std::size_t i = 0; i < kFatal.size(); ++i) {
    if (kFatal[i] == number) sigaction(number, &previous_actions[i], nullptr);
  }
  // A fault comes again by itself once this returns; what was sent is sent again.
  if (info->si_code <= 0) raise(number);
  errno = saved_errno;
}

Status Failed(const std::string& what) {
  return Status::IOError(what, ": ", std::strerror(errno));
}

}  // namespace

std::string SignalName(int signal) {
  const char* const name = sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

bool IsOfItsOwnMaking(int signal) {
  switch (signal) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGABRT:
    case SIGSYS:
    case SIGTRAP:
      return true;
    default:
      return false;
  }
}

std::string FlightRecord::Describe() const {
  switch (cause) {
    case FlightCause::kNone:
      return "";
    case FlightCause::kHang:
      return "hang";
    case FlightCause::kOutOfMemory:
      return "out of memory";
    case FlightCause::kSignal:
      break;
  }
  if (stack_hash == 0) return SignalName(signal);
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016llx", static_cast<unsigned long long>(stack_hash));
  return SignalName(signal) + " (stack " + hash + ")";
}

Result<FlightRecord> FlightRecorder::Read(const std::string& path) {
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
  std::error_code missing;
  if (!std::filesystem::exists(path, missing)) return FlightRecord{};
  const auto layout = std::make_unique<Layout>();
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(layout.get()), sizeof(Layout));
  const auto wrong = [&](const char* why) {
    return Status::Invalid(path, " is no flight record: ", why);
  };
  if (file.gcount() != sizeof(Layout) || file.peek() != std::ifstream::traits_type::eof()) {
    return wrong("its size is another");
  }
  if (std::memcmp(layout->magic, kMagic, sizeof kMagic) != 0 || layout->version != kVersion) {
    return wrong("its first bytes are others");
  }
  const std::uint32_t cause = layout->cause;
  if (cause > static_cast<std::uint32_t>(FlightCause::kOutOfMemory) || layout->signal > 64) {
    return wrong("its cause is none");
  }
  FlightRecord record;
  record.cause = static_cast<FlightCause>(cause);
  record.signal = static_cast<int>(layout->signal);
  record.stack_hash = layout->stack_hash;
  for (const Slot& slot : layout->slots) {
    const std::uint32_t state = slot.state;
    if (state > kSuspect || slot.name_size > kNameBytes) return wrong("a request in it is none");
    if (state == kSuspect || (state == kInFlight && record.cause != FlightCause::kNone)) {
      record.suspects.push_back({{slot.high, slot.low}, std::string(slot.name, slot.name_size)});
    }
  }
  return record;
}

Result<std::unique_ptr<FlightRecorder>> FlightRecorder::Open(
    const std::string& path, std::span<const Flight> suspects
) {
  // A whole record takes the place of the last one: dying between the two loses no suspect.
  const std::string fresh = path + ".new";
  const int fd = open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Failed(fresh);
  auto recorder = OnDescriptor(fd);
  close(fd);
  if (!recorder.ok()) return recorder.status().WithMessage(path, ": ", recorder.status().message());
  {
    MutexLock lock((*recorder)->mutex_);
    for (const Flight& suspect : suspects) (*recorder)->Put(suspect, kSuspect);
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return Failed(path);
  return recorder;
}

Result<std::unique_ptr<FlightRecorder>> FlightRecorder::OnDescriptor(int fd) {
  // All blocks now: a full disk must not turn a write into SIGBUS later.
  if (const int error = posix_fallocate(fd, 0, sizeof(Layout)); error != 0) {
    return Status::IOError("flight record: ", std::strerror(error));
  }
  void* const memory = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return Failed("flight record");
  auto* const layout = new (memory) Layout;
  std::memcpy(layout->magic, kMagic, sizeof kMagic);
  return std::unique_ptr<FlightRecorder>(new FlightRecorder(layout));
}

FlightRecorder::FlightRecorder(Layout* layout) : layout_(layout) {
  MutexLock lock(mutex_);
  for (std::size_t i = kCapacity; i > 0; --i) free_.push_back(i - 1);
}

FlightRecorder::~FlightRecorder() {
  if (catches_signals_) {
    is_catching.store(false);
    for (std::size_t i = 0; i < kFatal.size(); ++i) {
      sigaction(kFatal[i], &previous_actions[i], nullptr);
    }
  }
  munmap(layout_, sizeof(Layout));
}

void FlightRecorder::Put(const Flight& flight, std::uint32_t state) {
  const Key key(flight.key.high, flight.key.low);
  if (free_.empty() || slots_.contains(key)) return;  // a suspect stays one
  slots_[key] = free_.back();
  Slot& slot = layout_->slots[free_.back()];
  free_.pop_back();
  slot.high = flight.key.high;
  slot.low = flight.key.low;
  const std::size_t size = std::min(flight.name.size(), kNameBytes);
  std::memcpy(slot.name, flight.name.data(), size);
  slot.name_size = static_cast<std::uint32_t>(size);
  slot.state.store(state, std::memory_order_release);
}

void FlightRecorder::Enter(const Flight& flight) {
  MutexLock lock(mutex_);
  Put(flight, kInFlight);
}

void FlightRecorder::Leave(RandomKey key) {
  MutexLock lock(mutex_);
  const auto found = slots_.find({key.high, key.low});
  if (found == slots_.end()) return;
  layout_->slots[found->second].state.store(kFree, std::memory_order_release);
  free_.push_back(found->second);
  slots_.erase(found);
}

void FlightRecorder::SetCause(FlightCause cause) {
  auto none = static_cast<std::uint32_t>(FlightCause::kNone);
  layout_->cause.compare_exchange_strong(none, static_cast<std::uint32_t>(cause));
}

void FlightRecorder::CatchFatalSignals() {
  MS_CHECK(!is_catching.load());
  std::array<void*, 1> frame{};
  backtrace(frame.data(), 1);  // loads libgcc, which a handler may not
  crash_site = {&layout_->cause, &layout_->signal, &layout_->stack_hash};
  is_catching.store(true);
  catches_signals_ = true;
  struct sigaction action{};
  action.sa_sigaction = OnFatalSignal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kFatal.size(); ++i) {
    sigaction(kFatal[i], &action, &previous_actions[i]);
  }
}

}  // namespace millstream
