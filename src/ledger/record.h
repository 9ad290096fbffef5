// SPDX-License-Identifier: Apache-2.0
// The framing that journals and row logs share: records that tell a torn end from damage.
//
// docs/formats.md states it byte by byte. A record says up to where its file was synced when it was
// written; so a bad record below that place is damage, and one above it is the end that a crash
// left.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "storage/storage.h"

namespace millstream {

struct Record {
  std::uint8_t type = 0;
  std::uint32_t epoch = 0;
  std::uint64_t sequence = 0;  // counts a file's records from 0
  std::uint64_t synced = 0;    // bytes of the file that were synced when this was written
  std::string_view payload;    // into the scanned bytes
  std::size_t begin = 0, end = 0;
};

struct RecordScan {
  std::vector<Record> records;       // the good ones
  std::size_t valid_length = 0;      // up to the torn end
  std::vector<std::size_t> damaged;  // where damage begins; the records after it are good again
};

/// Reads a file's records. What is no whole file of ours has none and a valid length of 0.
RecordScan ScanRecords(std::string_view bytes);

/// Writes records to a file that grows. Write and Sync may be called at the same time, each by one
/// thread.
class RecordWriter {
 public:
  /// Creates the file. AlreadyExists if the name is taken.
  static Result<std::unique_ptr<RecordWriter>> Create(
      Storage& storage, const std::string& path, std::uint32_t epoch
  );

  /// After a failure nothing more is written: it would stand behind half a record. REQUIRES:
  /// payload.size() <= kMaxPayload.
  Status Write(std::uint8_t type, std::string_view payload);
  /// Makes what was written so far durable.
  Status Sync();
  /// Bytes that were written, and those of them that are durable.
  std::uint64_t length() const { return length_.load(); }
  std::uint64_t synced() const { return synced_.load(); }

  static constexpr std::size_t kMaxPayload = 256U << 20;

 private:
  RecordWriter(std::unique_ptr<AppendFile> file, std::uint32_t epoch)
      : file_(std::move(file)), epoch_(epoch) {}

  const std::unique_ptr<AppendFile> file_;
  const std::uint32_t epoch_;
  std::uint64_t sequence_ = 0;
  bool has_failed_ = false;
  std::atomic<std::uint64_t> length_ = 0, synced_ = 0;
};

}  // namespace millstream
