// SPDX-License-Identifier: Apache-2.0
#include "job/results.h"

#include <chrono>
#include <set>
#include <utility>

#include "engine/wire.h"
#include "fmt/format.h"
#include "storage/path.h"

namespace millstream {
namespace {

// A group's syncs wait for so much time or bytes: on a disk, and on an object store, where each is
// a request that costs money.
constexpr GroupLimits kDiskGroup{std::chrono::milliseconds(200), 1 << 20};
constexpr GroupLimits kStoreGroup{std::chrono::seconds(15), 4 << 20};

// The row first: it begins every key of the row.
constexpr std::size_t kRowBytes = 12;
std::string KeyBytes(const ResultKey& key) {
  WireWriter out;
  out.U32(static_cast<std::uint32_t>(key.row.file));
  out.I64(key.row.record);
  out.I64(key.sample);
  out.Text(key.step);
  return out.Take();
}

}  // namespace

std::int64_t RowsIn(const LoadedRows& rows) {
  std::set<std::string_view> found;
  for (const auto& [key, entries] : rows.by_key) {
    found.insert(std::string_view(key).substr(0, kRowBytes));
  }
  return static_cast<std::int64_t>(found.size());
}

JobResults::JobResults(Ledger& ledger, const BlamedRows* blamed)
    : ledger_(ledger),
      blamed_(blamed),
      group_(IsObjectPath(ledger.layout().state) ? kStoreGroup : kDiskGroup) {
  thread_.Spawn([this](std::stop_token stop) { return SyncInGroups(stop); });
}

JobResults::~JobResults() {
  thread_.RequestStop();
}

Result<std::unique_ptr<JobResults>> JobResults::Load(
    Ledger& ledger, const std::vector<std::int64_t>& splits, const BlamedRows* blamed
) {
  std::unique_ptr<JobResults> results(new JobResults(ledger, blamed));
  for (const std::int64_t split : splits) {
    MS_RETURN_NOT_OK(results->Load(split));
  }
  return results;
}

Status JobResults::Load(std::int64_t split) {
  MS_ASSIGN_OR_RETURN(LoadedRows rows, ledger_.LoadRows(split));
  MutexLock lock(mutex_);
  Loaded& loaded = loaded_[split];
  loaded.rows = std::move(rows);
  ++loaded.times;
  return Status::OK();
}

KnownResult JobResults::Find(const ResultKey& key) {
  if (blamed_ != nullptr) {
    if (auto verdict = blamed_->VerdictOn(key)) return {std::move(verdict), {}};
  }
  std::vector<LoggedResult> entries;
  {
    MutexLock lock(mutex_);
    const auto split = loaded_.find(key.split);
    if (split == loaded_.end()) return {};
    const auto& by_key = split->second.rows.by_key;
    const auto found = by_key.find(KeyBytes(key));
    if (found == by_key.end()) return {};
    entries = found->second;
  }
  // The first answer counts, as two drivers may both have given one; else the longest beginning.
  KnownResult known;
  for (const LoggedResult& entry : entries) {
    if (entry.request != key.request) continue;
    if (entry.kind == LogKind::kResult) {
      auto answer = DecodeCompletion(entry.bytes);
      if (!answer.ok()) continue;  // of a later version, say: it is computed again
      known.answer = *std::move(answer);
      known.prefix.clear();
      return known;
    }
    WireReader in(entry.bytes);
    std::vector<std::int32_t> tokens = in.Tokens();
    if (in.Finish().ok() && tokens.size() > known.prefix.size()) known.prefix = std::move(tokens);
  }
  return known;
}

Status JobResults::Keep(const ResultKey& key, const Completion& answer) {
  return Log(key, LogKind::kResult, EncodeCompletion(answer));
}

Status JobResults::KeepPrefix(const ResultKey& key, const std::vector<std::int32_t>& tokens) {
  WireWriter out;
  out.Tokens(tokens);
  return Log(key, LogKind::kPrefix, out.Take());
}

Status JobResults::Blame(const ResultKey& key, const Completion& verdict) {
  return ledger_.Record(EntryType::kPoison, PoisonOf(key, verdict));
}

Status JobResults::Log(const ResultKey& key, LogKind kind, const std::string& bytes) {
  MS_RETURN_NOT_OK(ledger_.rows().Append(key.split, kind, KeyBytes(key), key.request, bytes));
  MutexLock lock(mutex_);
  unsynced_bytes_ += bytes.size();
  if (unsynced_bytes_ >= group_.bytes) changed_.notify_all();
  return failure_;
}

void JobResults::Forget(std::int64_t split) {
  MutexLock lock(mutex_);
  const auto found = loaded_.find(split);
  if (found != loaded_.end() && --found->second.times <= 0) loaded_.erase(found);
}

Status JobResults::SyncInGroups(std::stop_token stop) {
  while (!stop.stop_requested()) {
    {
      MutexLock lock(mutex_);
      changed_.wait_for(lock, stop, group_.time, [this]() MS_REQUIRES(mutex_) {
        return unsynced_bytes_ >= group_.bytes;
      });
      if (unsynced_bytes_ == 0) continue;
      unsynced_bytes_ = 0;
    }
    const Status synced = ledger_.rows().Sync();
    if (synced.ok()) continue;
    MutexLock lock(mutex_);
    failure_ = synced;
    return Status::OK();
  }
  return Status::OK();
}

Status JobResults::Finish() {
  thread_.RequestStop();
  MS_RETURN_NOT_OK(thread_.Join());
  {
    MutexLock lock(mutex_);
    MS_RETURN_NOT_OK(failure_);
  }
  return ledger_.rows().Sync();
}

}  // namespace millstream
