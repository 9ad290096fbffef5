// SPDX-License-Identifier: Apache-2.0
#include "ledger/record.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "xxhash.h"

namespace millstream {
namespace {

// The first bytes of a file; the last is the version of the format.
constexpr std::string_view kMagic("MSTREAM\x01", 8);

// length u32 | check u32 | type u8 | flags u8 | epoch u32 | sequence u64 | synced u64 | payload
constexpr std::size_t kChecked = 8;  // where what the check covers begins
constexpr std::size_t kHeader = 30;

template <typename T>
void Put(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff));
  }
}

template <typename T>
T Get(std::string_view bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[at + i])) << (8 * i);
  }
  return static_cast<T>(value);
}

std::uint32_t CheckOf(std::uint32_t length, std::string_view checked) {
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(checked.data(), checked.size(), length));
}

// The record at `at`, if it is whole.
std::optional<Record> ReadRecord(std::string_view bytes, std::size_t at) {
  if (bytes.size() < at + kHeader) return std::nullopt;
  const auto length = Get<std::uint32_t>(bytes, at);
  if (length > bytes.size() - at - kHeader) return std::nullopt;
  const std::string_view checked = bytes.substr(at + kChecked, kHeader - kChecked + length);
  if (CheckOf(length, checked) != Get<std::uint32_t>(bytes, at + 4)) return std::nullopt;
  Record record;
  record.type = Get<std::uint8_t>(bytes, at + 8);
  record.epoch = Get<std::uint32_t>(bytes, at + 10);
  record.sequence = Get<std::uint64_t>(bytes, at + 14);
  record.synced = Get<std::uint64_t>(bytes, at + 22);
  record.payload = bytes.substr(at + kHeader, length);
  record.begin = at;
  record.end = at + kHeader + length;
  return record;
}

// The next whole record that may follow `sequence`, at `at` or later.
std::optional<Record> FindRecord(std::string_view bytes, std::size_t at, std::uint64_t sequence) {
  for (; at + kHeader <= bytes.size(); ++at) {
    const std::optional<Record> record = ReadRecord(bytes, at);
    if (record && record->sequence >= sequence) return record;
  }
  return std::nullopt;
}

}  // namespace

RecordScan ScanRecords(std::string_view bytes) {
  RecordScan scan;
  std::size_t at = kMagic.size();
  std::uint64_t sequence = 0;
  std::vector<std::pair<std::size_t, std::size_t>> gaps;  // where, and how many records before it
  if (!bytes.starts_with(kMagic)) gaps.emplace_back(0, 0);
  while (at < bytes.size()) {
    std::optional<Record> record = ReadRecord(bytes, at);
    if (!record || record->sequence != sequence) {
      record = FindRecord(bytes, at + 1, sequence);
      if (!record) break;
      gaps.emplace_back(at, scan.records.size());
    }
    sequence = record->sequence + 1;
    at = record->end;
    scan.records.push_back(*record);
  }
  scan.valid_length = scan.records.empty() ? kMagic.size() : scan.records.back().end;
  // A gap that no later record calls synced is where a crash tore the file.
  for (const auto& [where, records_before] : gaps) {
    const bool was_synced = std::any_of(
        scan.records.begin() + static_cast<std::ptrdiff_t>(records_before),
        scan.records.end(),
        [&, place = where](const Record& record) { return record.synced > place; }
    );
    if (was_synced) {
      scan.damaged.push_back(where);
      continue;
    }
    scan.records.resize(records_before);
    scan.valid_length = where;
    break;
  }
  return scan;
}

Result<std::unique_ptr<RecordWriter>> RecordWriter::Create(
    Storage& storage, const std::string& path, std::uint32_t epoch
) {
  MS_ASSIGN_OR_RETURN(auto file, storage.CreateAppend(path));
  MS_RETURN_NOT_OK(file->Append(kMagic));
  std::unique_ptr<RecordWriter> writer(new RecordWriter(std::move(file), epoch));
  writer->length_ = kMagic.size();
  return writer;
}

Status RecordWriter::Write(std::uint8_t type, std::string_view payload) {
  MS_CHECK(payload.size() <= kMaxPayload);
  if (has_failed_) return Status::IOError("the file failed before");
  const auto length = static_cast<std::uint32_t>(payload.size());
  std::string checked;
  checked.reserve(kHeader + payload.size());
  Put(checked, type);
  Put(checked, std::uint8_t{0});
  Put(checked, epoch_);
  Put(checked, sequence_++);
  Put(checked, synced_.load());
  checked += payload;
  std::string bytes;
  bytes.reserve(kHeader + payload.size());
  Put(bytes, length);
  Put(bytes, CheckOf(length, checked));
  bytes += checked;
  has_failed_ = true;
  MS_RETURN_NOT_OK(file_->Append(bytes));
  has_failed_ = false;
  length_ += bytes.size();
  return Status::OK();
}

Status RecordWriter::Sync() {
  const std::uint64_t length = length_;
  if (length == synced_) return Status::OK();
  MS_RETURN_NOT_OK(file_->Sync());
  synced_ = length;
  return Status::OK();
}

}  // namespace millstream
