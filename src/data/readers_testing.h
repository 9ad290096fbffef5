// SPDX-License-Identifier: Apache-2.0
// What tests of the readers share: a folder of files, and rows as text.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "data/input.h"
#include "data/reader.h"

namespace millstream {

/// A folder of its own, removed at the end.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  /// Writes a file, and the folders that it stands in.
  void Write(const std::string& name, std::string_view bytes) const;
  std::string Path(const std::string& name) const { return (path_ / name).string(); }
  InputOptions Options(std::vector<std::string> paths) const;

 private:
  std::filesystem::path path_;
};

struct ReadSettings {
  std::int64_t batch_rows = 1000;
  std::int64_t split_rows = 4096;
  std::uint64_t split_bytes = std::uint64_t{64} << 20;
  std::vector<std::string> columns;
};

/// Every row in input order as "FILE:RECORD JSON" (without "FILE:" if there is one file), or as
/// "RECORD CODE: message", or as "RECORD skipped"; or the one line "failed: message".
std::vector<std::string> ReadAll(const InputOptions& options, const ReadSettings& settings = {});
Result<std::vector<std::string>> ReadRows(
    const Snapshot& snapshot, const InputOptions& options, const ReadSettings& settings
);
/// The rows of one batch, as above.
std::vector<std::string> RowTexts(const InputBatch& batch);
/// The message with which a snapshot fails.
std::string SnapshotError(const InputOptions& options);
/// "name: type" of each column.
std::vector<std::string> ColumnTypes(const InputOptions& options);

std::string Gzip(std::string_view text);
std::string Zstd(std::string_view text);

}  // namespace millstream
