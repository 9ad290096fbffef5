// SPDX-License-Identifier: Apache-2.0
// Disks for tests: one that lives in memory and forgets, as a power cut makes it, what was not
// synced; and one whose nth call fails.
//
// The model of what survives is that of Pillai et al., "All file systems are not created equal: on
// the complexity of crafting crash-consistent applications", OSDI 2014: writes and changes of names
// that were not synced may each be lost, survive in any order, or, writes, be torn.

#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "storage/disk.h"

namespace millstream {

/// How a process ends.
enum class Crash {
  kKill,           // the process alone: what it wrote is still there, if not yet safe
  kPowerNothing,   // power, and nothing unsynced survives
  kPowerPrefix,    // power, and the first of the unsynced operations survive
  kPowerScramble,  // power, and any of the unsynced operations survive, torn ones among them
};

class SimulatedDisk final : public Disk {
 public:
  explicit SimulatedDisk(std::uint64_t seed = 0) : random_(seed) {}

  /// The call number `n` from now that changes something, counted from 1, does nothing or half of
  /// a write, and every call after it fails: the process is dead. 0: none.
  void DieAt(std::int64_t n) {
    MutexLock lock(mutex_);
    die_at_ = n == 0 ? 0 : num_changes_ + n;
  }
  bool is_dead() const {
    MutexLock lock(mutex_);
    return is_dead_;
  }
  /// Ends the process, which need not be dead; the next one finds what survives.
  void Restart(Crash crash);
  /// Calls so far that changed something.
  std::int64_t num_changes() const {
    MutexLock lock(mutex_);
    return num_changes_;
  }
  /// The bytes that stand under every name now, folders left out.
  std::map<std::string, std::string> Files() const;
  /// Puts bytes under a name, as if someone else had done it long ago.
  void Plant(const std::string& path, std::string bytes);

  int Open(const std::string& path, Mode mode, File* file) override;
  int Write(File file, std::string_view bytes, std::size_t* written) override;
  int Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* got) override;
  int Size(File file, std::uint64_t* bytes) override;
  void StartSync(File /*file*/) override {}
  int Sync(File file) override;
  int Close(File file) override;
  int RenameWithoutReplacing(const std::string& from, const std::string& to) override;
  int Exchange(const std::string& a, const std::string& b) override;
  int MakeFolder(const std::string& path, bool owner_only) override;
  int List(const std::string& folder, std::vector<StoredFile>* files) override;
  int Remove(const std::string& path) override;
  int Reserve(const std::string& path, std::uint64_t bytes) override;
  int Space(const std::string& path, DiskSpace* space) override;
  int Lock(const std::string& path, std::string_view holder, File* file) override;
  int IsLocked(const std::string& path, bool* locked) override;

 private:
  struct UnsyncedWrite {
    std::size_t offset;
    std::string bytes;
  };
  struct Node {
    bool is_folder = false;
    std::string now, synced;
    std::vector<UnsyncedWrite> unsynced;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;
  // A change of names: `from` goes, `to` comes to stand for `node`; either may be empty.
  struct NameChange {
    std::string from, to;
    std::shared_ptr<Node> node;
    std::shared_ptr<Node> swapped;  // of an exchange: what `from` stands for then
  };
  struct Handle {
    std::shared_ptr<Node> node;
    std::string path;
    bool is_lock = false;
  };

  bool Dies() MS_REQUIRES(mutex_);
  bool FolderStands(const std::string& path) const MS_REQUIRES(mutex_);
  void Change(NameChange change) MS_REQUIRES(mutex_);
  static void Apply(const NameChange& change, Names& names);
  void SyncFolder(const std::string& path) MS_REQUIRES(mutex_);
  std::string Survivor(const Node& node, Crash crash) MS_REQUIRES(mutex_);
  std::uint64_t Draw(std::uint64_t bound) MS_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::mt19937_64 random_ MS_GUARDED_BY(mutex_);
  std::int64_t num_changes_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t die_at_ MS_GUARDED_BY(mutex_) = 0;
  bool is_dead_ MS_GUARDED_BY(mutex_) = false;
  Names now_ MS_GUARDED_BY(mutex_), synced_ MS_GUARDED_BY(mutex_);
  std::vector<NameChange> unsynced_ MS_GUARDED_BY(mutex_);
  std::map<File, Handle> open_ MS_GUARDED_BY(mutex_);
  File next_file_ MS_GUARDED_BY(mutex_) = 1;
};

/// Passes calls on to another disk, counts them, and lets some fail.
class FaultyDisk final : public Disk {
 public:
  explicit FaultyDisk(std::shared_ptr<Disk> base) : base_(std::move(base)) {}

  /// Lets call number `n` from now, counted from 1, fail with `error`, and all later ones too if
  /// `for_good`. A failed write may have written some of its bytes.
  void FailAt(std::int64_t n, int error, bool for_good);
  /// Call number `n` from now, if it is a write, writes one byte alone.
  void CutWriteAt(std::int64_t n);
  /// Calls `act` before call number `n` from now; its own calls, if any, count as later ones.
  void CallAt(std::int64_t n, std::function<void()> act);
  std::int64_t num_calls() const {
    MutexLock lock(mutex_);
    return num_calls_;
  }
  bool has_failed() const {
    MutexLock lock(mutex_);
    return has_failed_;
  }

  int Open(const std::string& path, Mode mode, File* file) override;
  int Write(File file, std::string_view bytes, std::size_t* written) override;
  int Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* got) override;
  int Size(File file, std::uint64_t* bytes) override;
  void StartSync(File file) override { base_->StartSync(file); }
  int Sync(File file) override;
  int Close(File file) override;
  int RenameWithoutReplacing(const std::string& from, const std::string& to) override;
  int Exchange(const std::string& a, const std::string& b) override;
  int MakeFolder(const std::string& path, bool owner_only) override;
  int List(const std::string& folder, std::vector<StoredFile>* files) override;
  int Remove(const std::string& path) override;
  int Reserve(const std::string& path, std::uint64_t bytes) override;
  int Space(const std::string& path, DiskSpace* space) override;
  int Lock(const std::string& path, std::string_view holder, File* file) override;
  int IsLocked(const std::string& path, bool* locked) override;

 private:
  // The error that this call is to fail with, or 0.
  int Count();

  const std::shared_ptr<Disk> base_;
  mutable Mutex mutex_;
  std::int64_t num_calls_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t fail_at_ MS_GUARDED_BY(mutex_) = 0;
  std::int64_t cut_at_ MS_GUARDED_BY(mutex_) = 0;
  int error_ MS_GUARDED_BY(mutex_) = 0;
  bool for_good_ MS_GUARDED_BY(mutex_) = false;
  bool has_failed_ MS_GUARDED_BY(mutex_) = false;
  std::int64_t act_at_ MS_GUARDED_BY(mutex_) = 0;
  std::function<void()> act_ MS_GUARDED_BY(mutex_);
};

}  // namespace millstream
