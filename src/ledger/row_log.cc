// SPDX-License-Identifier: Apache-2.0
#include "ledger/row_log.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "fmt/format.h"

namespace millstream {
namespace {

constexpr std::uint64_t kMaxLogBytes = 4ULL << 30;

std::string SplitFolder(const std::string& folder, std::int64_t split) {
  return fmt::format("{}/{:06d}", folder, split);
}

// request high u64 | request low u64 | key length u32 | key | bytes, little-endian
std::string Payload(std::string_view key, const Hash128& request, std::string_view bytes) {
  std::string payload(2 * sizeof(std::uint64_t) + sizeof(std::uint32_t), '\0');
  const auto length = static_cast<std::uint32_t>(key.size());
  std::memcpy(payload.data(), &request.high, 8);
  std::memcpy(payload.data() + 8, &request.low, 8);
  std::memcpy(payload.data() + 16, &length, 4);
  payload += key;
  payload += bytes;
  return payload;
}

// False if the payload is none of ours.
bool ReadPayload(std::string_view payload, std::string* key, LoggedResult* result) {
  constexpr std::size_t kFixed = 20;
  if (payload.size() < kFixed) return false;
  std::uint32_t length = 0;
  std::memcpy(&result->request.high, payload.data(), 8);
  std::memcpy(&result->request.low, payload.data() + 8, 8);
  std::memcpy(&length, payload.data() + 16, 4);
  payload.remove_prefix(kFixed);
  if (length > payload.size()) return false;
  *key = payload.substr(0, length);
  result->bytes = payload.substr(length);
  return true;
}

}  // namespace

std::string RowLog::FolderOf(std::int64_t split) const {
  return SplitFolder(folder_, split);
}

// The file failed: a sync that failed once says nothing when it is tried again, so that what was
// not durable is written to another file.
Status RowLog::Rewrite(std::int64_t split, File& file) {
  file.writer = nullptr;
  const std::string path =
      fmt::format("{}/{:04d}-{}-{:04d}", FolderOf(split), epoch_, writer_, ++file.number);
  MS_ASSIGN_OR_RETURN(
      std::shared_ptr<RecordWriter> writer, RecordWriter::Create(storage_, path, epoch_)
  );
  for (Entry& entry : file.unsynced) {
    MS_RETURN_NOT_OK(writer->Write(entry.type, entry.payload));
    entry.end = writer->length();
  }
  file.writer = std::move(writer);
  return Status::OK();
}

Status RowLog::Append(
    std::int64_t split,
    LogKind kind,
    std::string_view key,
    const Hash128& request,
    std::string_view bytes
) {
  std::shared_ptr<File> file;
  {
    MutexLock lock(mutex_);
    std::shared_ptr<File>& slot = open_[split];
    if (!slot) slot = std::make_shared<File>();
    file = slot;
  }
  MutexLock lock(file->write_mutex);
  file->unsynced.push_back({static_cast<std::uint8_t>(kind), Payload(key, request, bytes), 0});
  Entry& entry = file->unsynced.back();
  if (file->writer && file->writer->Write(entry.type, entry.payload).ok()) {
    entry.end = file->writer->length();
    return Status::OK();
  }
  Status rewritten = Rewrite(split, *file);
  if (!rewritten.ok()) file->unsynced.pop_back();  // the caller was told
  return rewritten;
}

Status RowLog::SyncFile(std::int64_t split, File& file) {
  MutexLock syncing(file.sync_mutex);
  bool has_failed = false;
  while (true) {
    std::shared_ptr<RecordWriter> writer;
    {
      MutexLock lock(file.write_mutex);
      if (file.unsynced.empty()) return Status::OK();
      writer = file.writer;
    }
    const Status synced = writer ? writer->Sync() : Status::IOError("the log's file failed");
    MutexLock lock(file.write_mutex);
    if (file.writer != writer) continue;  // a write failed meanwhile, and all is in another file
    if (synced.ok()) {
      const auto is_durable = [&](const Entry& entry) { return entry.end <= writer->synced(); };
      std::erase_if(file.unsynced, is_durable);
      return Status::OK();
    }
    if (has_failed) return synced;
    has_failed = true;
    MS_RETURN_NOT_OK(Rewrite(split, file));
  }
}

Status RowLog::Sync() {
  std::map<std::int64_t, std::shared_ptr<File>> files;
  {
    MutexLock lock(mutex_);
    files = open_;
  }
  for (const auto& [split, file] : files) MS_RETURN_NOT_OK(SyncFile(split, *file));
  return Status::OK();
}

Status RowLog::Sync(std::int64_t split) {
  std::shared_ptr<File> file;
  {
    MutexLock lock(mutex_);
    const auto found = open_.find(split);
    if (found == open_.end()) return Status::OK();
    file = found->second;
  }
  return SyncFile(split, *file);
}

void RowLog::Close(std::int64_t split) {
  std::shared_ptr<File> file;
  {
    MutexLock lock(mutex_);
    const auto found = open_.find(split);
    if (found == open_.end()) return;
    file = found->second;
  }
  MutexLock lock(file->write_mutex);
  if (file->unsynced.empty()) file->writer = nullptr;
}

Status RowLog::Drop(std::int64_t split) {
  {
    MutexLock lock(mutex_);
    open_.erase(split);
  }
  return storage_.Remove(FolderOf(split));
}

Result<LoadedRows> RowLog::Load(Storage& storage, const std::string& folder, std::int64_t split) {
  LoadedRows rows;
  const std::string own = SplitFolder(folder, split);
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(own));
  for (const StoredFile& file : files) {
    const std::string path = own + "/" + file.name;
    const auto bytes = storage.Read(path, kMaxLogBytes);
    if (IsNotFound(bytes.status())) continue;  // dropped, as the split's part stands
    // On an object store a driver that was taken over may remove the beginning of its successor's.
    if (IsConflict(bytes.status())) {
      rows.damage.push_back(
          bytes.status().message() + ": the answers that it held are computed again"
      );
      continue;
    }
    MS_RETURN_NOT_OK(bytes.status());
    const RecordScan scan = ScanRecords(*bytes);
    for (const std::size_t at : scan.damaged) {
      rows.damage.push_back(fmt::format(
          "{} is damaged at byte {}: the answers that it held there are computed again", path, at
      ));
    }
    for (const Record& record : scan.records) {
      LoggedResult result;
      std::string key;
      const bool is_known = record.type == static_cast<std::uint8_t>(LogKind::kResult) ||
                            record.type == static_cast<std::uint8_t>(LogKind::kPrefix);
      if (!is_known || !ReadPayload(record.payload, &key, &result)) continue;
      result.kind = static_cast<LogKind>(record.type);
      rows.by_key[std::move(key)].push_back(std::move(result));
    }
  }
  return rows;
}

Status RowLog::SyncFound(Storage& storage, const std::string& folder, std::int64_t split) {
  const std::string own = SplitFolder(folder, split);
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, storage.List(own));
  for (const StoredFile& file : files) {
    const Status synced = storage.Sync(own + "/" + file.name);
    // Dropped meanwhile, as the split's part stands.
    if (!synced.ok() && !IsNotFound(synced)) return synced;
  }
  return Status::OK();
}

Result<std::vector<std::int64_t>> RowLog::Splits(Storage& storage, const std::string& folder) {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredFile> folders, storage.List(folder));
  std::vector<std::int64_t> splits;
  for (const StoredFile& entry : folders) {
    std::int64_t split = 0;
    const char* end = entry.name.data() + entry.name.size();
    const auto parsed = std::from_chars(entry.name.data(), end, split);
    if (parsed.ec == std::errc() && parsed.ptr == end) splits.push_back(split);
  }
  return splits;
}

}  // namespace millstream
