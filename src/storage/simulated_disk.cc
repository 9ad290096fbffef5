// SPDX-License-Identifier: Apache-2.0
#include "storage/simulated_disk.h"

#include <algorithm>

namespace millstream {
namespace {

std::string_view ParentOf(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view(".")
         : slash == 0                    ? std::string_view("/")
                                         : path.substr(0, slash);
}

bool IsRoot(std::string_view path) {
  return path.empty() || path == "/" || path == ".";
}

void Overwrite(std::string& bytes, std::size_t offset, std::string_view with) {
  if (bytes.size() < offset + with.size()) bytes.resize(offset + with.size(), '\0');
  bytes.replace(offset, with.size(), with);
}

}  // namespace

std::uint64_t SimulatedDisk::Draw(std::uint64_t bound) {
  return random_() % bound;
}

bool SimulatedDisk::Dies() {
  if (!is_dead_ && ++num_changes_ == die_at_) is_dead_ = true;
  return is_dead_;
}

bool SimulatedDisk::FolderStands(const std::string& path) const {
  if (IsRoot(path)) return true;
  const auto found = now_.find(path);
  return found != now_.end() && found->second->is_folder;
}

void SimulatedDisk::Apply(const NameChange& change, Names& names) {
  if (change.swapped) {
    names[change.from] = change.swapped;
  } else if (!change.from.empty()) {
    names.erase(change.from);
  }
  if (!change.to.empty()) names[change.to] = change.node;
}

void SimulatedDisk::Change(NameChange change) {
  Apply(change, now_);
  unsynced_.push_back(std::move(change));
}

void SimulatedDisk::SyncFolder(const std::string& path) {
  std::vector<NameChange> rest;
  for (NameChange& change : unsynced_) {
    const bool here = (!change.from.empty() && ParentOf(change.from) == path) ||
                      (!change.to.empty() && ParentOf(change.to) == path);
    if (here) {
      Apply(change, synced_);
    } else {
      rest.push_back(std::move(change));
    }
  }
  unsynced_ = std::move(rest);
}

// What a file holds after the power went.
std::string SimulatedDisk::Survivor(const Node& node, Crash crash) {
  std::string bytes = node.synced;
  if (crash == Crash::kPowerNothing) return bytes;
  const std::size_t num_whole =
      crash == Crash::kPowerPrefix ? Draw(node.unsynced.size() + 1) : node.unsynced.size();
  for (std::size_t i = 0; i < node.unsynced.size() && i <= num_whole; ++i) {
    const UnsyncedWrite& write = node.unsynced[i];
    if (crash == Crash::kPowerScramble && Draw(2) == 0) continue;
    const bool torn = crash == Crash::kPowerPrefix ? i == num_whole : Draw(4) == 0;
    const std::size_t length = torn ? Draw(write.bytes.size() + 1) : write.bytes.size();
    Overwrite(bytes, write.offset, std::string_view(write.bytes).substr(0, length));
  }
  return bytes;
}

void SimulatedDisk::Restart(Crash crash) {
  MutexLock lock(mutex_);
  is_dead_ = false;
  die_at_ = 0;
  open_.clear();
  if (crash == Crash::kKill) return;
  Names names = synced_;
  const std::size_t prefix =
      crash == Crash::kPowerPrefix ? Draw(unsynced_.size() + 1) : unsynced_.size();
  for (std::size_t i = 0; i < prefix && crash != Crash::kPowerNothing; ++i) {
    if (crash == Crash::kPowerPrefix || Draw(2) == 0) Apply(unsynced_[i], names);
  }
  unsynced_.clear();
  now_.clear();
  for (const auto& [path, node] : names) {  // a folder comes before what is in it
    if (!FolderStands(std::string(ParentOf(path)))) continue;
    auto survivor = std::make_shared<Node>();
    survivor->is_folder = node->is_folder;
    survivor->now = survivor->synced = Survivor(*node, crash);
    now_[path] = std::move(survivor);
  }
  synced_ = now_;
}

std::map<std::string, std::string> SimulatedDisk::Files() const {
  MutexLock lock(mutex_);
  std::map<std::string, std::string> files;
  for (const auto& [path, node] : now_) {
    if (!node->is_folder) files[path] = node->now;
  }
  return files;
}

void SimulatedDisk::Plant(const std::string& path, std::string bytes) {
  MutexLock lock(mutex_);
  for (std::string folder(ParentOf(path)); !IsRoot(folder); folder = ParentOf(folder)) {
    if (now_.contains(folder)) continue;
    now_[folder] = synced_[folder] = std::make_shared<Node>(Node{true, {}, {}, {}});
  }
  auto node = std::make_shared<Node>(Node{false, bytes, bytes, {}});
  now_[path] = synced_[path] = std::move(node);
}

int SimulatedDisk::Open(const std::string& path, Mode mode, File* file) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  const auto found = now_.find(path);
  std::shared_ptr<Node> node = found == now_.end() ? nullptr : found->second;
  if (mode == Mode::kRead) {
    if (node == nullptr && !IsRoot(path)) return ENOENT;
  } else {
    if (node != nullptr && mode == Mode::kCreate) return EEXIST;
    if (node != nullptr && node->is_folder) return EISDIR;
    if (!FolderStands(std::string(ParentOf(path)))) return ENOENT;
    if (Dies()) return EIO;
    // One emptied is a new one: nothing of ours empties a file that must survive.
    node = std::make_shared<Node>();
    Change({{}, path, node, nullptr});
  }
  *file = next_file_++;
  open_[*file] = {std::move(node), path};
  return 0;
}

int SimulatedDisk::Write(File file, std::string_view bytes, std::size_t* written) {
  MutexLock lock(mutex_);
  const bool was_dead = is_dead_;
  const bool dies = Dies();
  if (was_dead) return EIO;
  const auto found = open_.find(file);
  if (found == open_.end()) return EBADF;
  Node& node = *found->second.node;
  if (dies) bytes = bytes.substr(0, Draw(bytes.size() + 1));
  node.unsynced.push_back({node.now.size(), std::string(bytes)});
  node.now += bytes;
  *written = bytes.size();
  return dies ? EIO : 0;
}

int SimulatedDisk::Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* got) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  const auto found = open_.find(file);
  if (found == open_.end()) return EBADF;
  const std::string& bytes = found->second.node->now;
  const std::size_t begin = std::min(bytes.size(), static_cast<std::size_t>(at));
  *got = std::min(buffer.size(), bytes.size() - begin);
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(begin), *got, buffer.begin());
  return 0;
}

int SimulatedDisk::Size(File file, std::uint64_t* bytes) {
  MutexLock lock(mutex_);
  const auto found = open_.find(file);
  if (is_dead_ || found == open_.end()) return EIO;
  *bytes = found->second.node->now.size();
  return 0;
}

int SimulatedDisk::Sync(File file) {
  MutexLock lock(mutex_);
  if (Dies()) return EIO;
  const auto found = open_.find(file);
  if (found == open_.end()) return EBADF;
  const Handle& handle = found->second;
  if (handle.node == nullptr || handle.node->is_folder) {
    SyncFolder(handle.path);
    return 0;
  }
  handle.node->synced = handle.node->now;
  handle.node->unsynced.clear();
  return 0;
}

int SimulatedDisk::Close(File file) {
  MutexLock lock(mutex_);
  return open_.erase(file) == 0 ? EBADF : 0;
}

int SimulatedDisk::RenameWithoutReplacing(const std::string& from, const std::string& to) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  const auto found = now_.find(from);
  if (found == now_.end() || !FolderStands(std::string(ParentOf(to)))) return ENOENT;
  if (now_.contains(to)) return EEXIST;
  if (found->second->is_folder) return ENOTSUP;
  if (Dies()) return EIO;
  Change({from, to, found->second, nullptr});
  return 0;
}

int SimulatedDisk::Exchange(const std::string& a, const std::string& b) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  const auto first = now_.find(a), second = now_.find(b);
  if (first == now_.end() || second == now_.end()) return ENOENT;
  if (Dies()) return EIO;
  Change({a, b, first->second, second->second});
  return 0;
}

int SimulatedDisk::MakeFolder(const std::string& path, bool /*owner_only*/) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  if (IsRoot(path) || now_.contains(path)) return EEXIST;
  if (!FolderStands(std::string(ParentOf(path)))) return ENOENT;
  if (Dies()) return EIO;
  Change({{}, path, std::make_shared<Node>(Node{true, {}, {}, {}}), nullptr});
  return 0;
}

int SimulatedDisk::List(const std::string& folder, std::vector<StoredFile>* files) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  if (!FolderStands(folder)) return now_.contains(folder) ? ENOTDIR : ENOENT;
  const std::string prefix = folder + "/";
  for (auto entry = now_.lower_bound(prefix); entry != now_.end(); ++entry) {
    const auto& [path, node] = *entry;
    if (!path.starts_with(prefix)) break;
    if (path.find('/', prefix.size()) != std::string::npos) continue;
    files->push_back({path.substr(prefix.size()), node->now.size(), node->is_folder});
  }
  return 0;
}

int SimulatedDisk::Remove(const std::string& path) {
  MutexLock lock(mutex_);
  if (is_dead_) return EIO;
  std::vector<std::string> names;
  if (now_.contains(path)) names.push_back(path);
  const std::string prefix = path + "/";
  for (auto entry = now_.lower_bound(prefix); entry != now_.end(); ++entry) {
    if (!entry->first.starts_with(prefix)) break;
    names.push_back(entry->first);
  }
  if (names.empty()) return ENOENT;
  // From the leaves up, each a change of its own.
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    if (Dies()) return EIO;
    Change({*name, {}, nullptr, nullptr});
  }
  return 0;
}

int SimulatedDisk::Reserve(const std::string& path, std::uint64_t /*bytes*/) {
  File file = 0;
  const int error = Open(path, Mode::kTruncate, &file);
  return error != 0 ? error : Close(file);
}

int SimulatedDisk::Space(const std::string& /*path*/, DiskSpace* space) {
  constexpr std::uint64_t kMuch = 1ULL << 40;
  *space = {kMuch, kMuch, {}};
  return 0;
}

int SimulatedDisk::IsLocked(const std::string& path, bool* locked) {
  MutexLock lock(mutex_);
  *locked = std::any_of(open_.begin(), open_.end(), [&](const auto& entry) {
    return entry.second.is_lock && entry.second.path == path;
  });
  return now_.contains(path) ? 0 : ENOENT;
}

int SimulatedDisk::Lock(const std::string& path, std::string_view holder, File* file) {
  bool is_locked = false;
  (void)IsLocked(path, &is_locked);
  if (is_locked) return EWOULDBLOCK;
  if (const int error = Open(path, Mode::kTruncate, file); error != 0) return error;
  std::size_t written = 0;
  const int error = Write(*file, holder, &written);
  MutexLock lock(mutex_);
  open_[*file].is_lock = true;
  return error;
}

int FaultyDisk::IsLocked(const std::string& path, bool* locked) {
  const int error = Count();
  return error != 0 ? error : base_->IsLocked(path, locked);
}

void FaultyDisk::FailAt(std::int64_t n, int error, bool for_good) {
  MutexLock lock(mutex_);
  fail_at_ = num_calls_ + n;
  error_ = error;
  for_good_ = for_good;
  has_failed_ = false;
}

void FaultyDisk::CutWriteAt(std::int64_t n) {
  MutexLock lock(mutex_);
  cut_at_ = num_calls_ + n;
}

void FaultyDisk::CallAt(std::int64_t n, std::function<void()> act) {
  MutexLock lock(mutex_);
  act_at_ = num_calls_ + n;
  act_ = std::move(act);
}

int FaultyDisk::Count() {
  std::function<void()> act;
  int error = 0;
  {
    MutexLock lock(mutex_);
    ++num_calls_;
    if (num_calls_ == act_at_) act = std::exchange(act_, nullptr);
    const bool fails =
        fail_at_ > 0 && (num_calls_ == fail_at_ || (for_good_ && num_calls_ > fail_at_));
    if (fails) has_failed_ = true;
    error = fails ? error_ : 0;
  }
  if (act) act();
  return error;
}

int FaultyDisk::Open(const std::string& path, Mode mode, File* file) {
  const int error = Count();
  return error != 0 ? error : base_->Open(path, mode, file);
}

int FaultyDisk::Write(File file, std::string_view bytes, std::size_t* written) {
  if (const int error = Count(); error != 0) {
    if (error != EINTR && error != EAGAIN) {
      (void)base_->Write(file, bytes.substr(0, bytes.size() / 2), written);
    }
    *written = 0;
    return error;
  }
  bool is_cut = false;
  {
    MutexLock lock(mutex_);
    is_cut = num_calls_ == cut_at_;
  }
  return base_->Write(file, is_cut ? bytes.substr(0, 1) : bytes, written);
}

int FaultyDisk::Read(File file, std::uint64_t at, std::span<char> buffer, std::size_t* got) {
  const int error = Count();
  return error != 0 ? error : base_->Read(file, at, buffer, got);
}

int FaultyDisk::Size(File file, std::uint64_t* bytes) {
  const int error = Count();
  return error != 0 ? error : base_->Size(file, bytes);
}

int FaultyDisk::Sync(File file) {
  const int error = Count();
  return error != 0 ? error : base_->Sync(file);
}

int FaultyDisk::Close(File file) {
  const int error = Count();
  const int closed = base_->Close(file);  // it is gone either way
  return error != 0 ? error : closed;
}

int FaultyDisk::RenameWithoutReplacing(const std::string& from, const std::string& to) {
  const int error = Count();
  return error != 0 ? error : base_->RenameWithoutReplacing(from, to);
}

int FaultyDisk::Exchange(const std::string& a, const std::string& b) {
  const int error = Count();
  return error != 0 ? error : base_->Exchange(a, b);
}

int FaultyDisk::MakeFolder(const std::string& path, bool owner_only) {
  const int error = Count();
  return error != 0 ? error : base_->MakeFolder(path, owner_only);
}

int FaultyDisk::List(const std::string& folder, std::vector<StoredFile>* files) {
  const int error = Count();
  return error != 0 ? error : base_->List(folder, files);
}

int FaultyDisk::Remove(const std::string& path) {
  const int error = Count();
  return error != 0 ? error : base_->Remove(path);
}

int FaultyDisk::Reserve(const std::string& path, std::uint64_t bytes) {
  const int error = Count();
  return error != 0 ? error : base_->Reserve(path, bytes);
}

int FaultyDisk::Space(const std::string& path, DiskSpace* space) {
  const int error = Count();
  return error != 0 ? error : base_->Space(path, space);
}

int FaultyDisk::Lock(const std::string& path, std::string_view holder, File* file) {
  const int error = Count();
  return error != 0 ? error : base_->Lock(path, holder, file);
}

}  // namespace millstream
