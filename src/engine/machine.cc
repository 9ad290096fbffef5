// SPDX-License-Identifier: Apache-2.0
#include "engine/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace millstream {
namespace {

constexpr const char* kCgroup = "/sys/fs/cgroup/";  // a container sees its own group there

std::optional<std::uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;  // "max": no number
}

std::optional<std::uint64_t> CgroupMemory() {
  const auto limit = ReadNumber(std::string(kCgroup) + "memory.max");
  const auto used = ReadNumber(std::string(kCgroup) + "memory.current");
  if (limit && used) return *limit > *used ? *limit - *used : 0;
  const auto limit_v1 = ReadNumber(std::string(kCgroup) + "memory/memory.limit_in_bytes");
  const auto used_v1 = ReadNumber(std::string(kCgroup) + "memory/memory.usage_in_bytes");
  if (limit_v1 && used_v1) return *limit_v1 > *used_v1 ? *limit_v1 - *used_v1 : 0;
  return std::nullopt;
}

std::uint64_t SystemMemory() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    std::uint64_t kib = 0;
    if (name == "MemAvailable:" && file >> kib) return kib * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  const auto pages = static_cast<std::uint64_t>(std::max(1L, sysconf(_SC_AVPHYS_PAGES)));
  return pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// The value of a line "name value".
std::optional<std::int64_t> ReadNamed(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string word;
  for (std::int64_t value = 0; file >> word >> value;) {
    if (word == name) return value;
  }
  return std::nullopt;
}

/// The process's own control group below kCgroup, of a line "0::/path" (version 2) or
/// "4:memory:/path" (version 1); empty in a container that sees its group as the root.
std::string OwnCgroup(std::string_view controller) {
  std::string mark(1, ':');
  mark.append(controller).append(":/");
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto at = line.find(mark);
    if (at != std::string::npos) return line.substr(at + mark.size()) + '/';
  }
  return "";
}

/// Cores' worth of time that the control group grants.
std::optional<double> CgroupCores() {
  std::ifstream file(std::string(kCgroup) + "cpu.max");
  double quota = 0;
  double period = 0;
  return file >> quota >> period && period > 0 ? std::optional(quota / period) : std::nullopt;
}

}  // namespace

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof set, &set) == 0
                  ? CPU_COUNT(&set)
                  : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  if (const auto granted = CgroupCores()) {
    cores = std::min(cores, static_cast<int>(std::lround(*granted)));
  }
  return std::max(1, cores);
}

std::uint64_t AvailableMemoryBytes() {
  return std::min(
      SystemMemory(), CgroupMemory().value_or(std::numeric_limits<std::uint64_t>::max())
  );
}

std::int64_t OomKills() {
  const std::string base = kCgroup;
  for (const std::string& path :
       {base + OwnCgroup("") + "memory.events",
        base + "memory.events",
        base + "memory/" + OwnCgroup("memory") + "memory.oom_control",
        base + "memory/memory.oom_control"}) {
    if (const auto kills = ReadNamed(path, "oom_kill")) return *kills;
  }
  return 0;
}

}  // namespace millstream
