// SPDX-License-Identifier: Apache-2.0
// Cuts a text file into its physical records: lines, CSV records with their quoted newlines, or the
// items of a JSON array. It finds where records begin and end, and judges nothing in them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "data/byte_source.h"

namespace millstream {

/// The longest record that is read; a longer one is a row with an error.
inline constexpr std::size_t kRecordBytesMax = std::size_t{32} << 20;

enum class Framing {
  kLines,      // text: one record a line, empty lines are none
  kJsonLines,  // the same, and lines of white space are none
  kCsv,        // lines too, but a quoted cell may hold newlines
  kTsv,        // the same with tabs between cells
  kJsonArray,  // the items of one top-level array
  kWhole,      // the file is one record
};

/// A record as it stands in the file, without the newline or comma that ends it.
struct TextRecord {
  std::string_view text;     // empty if `too_large`; valid until the next call of Next
  std::uint64_t offset = 0;  // of its first byte in the uncompressed text
  std::uint64_t line = 1;    // physical line on which it begins
  bool too_large = false;
  bool unclosed = false;  // the file ended inside it: an open quote, bracket or array
};

/// One thread. Holds one record and a read-ahead of 1 MiB in memory.
class TextScanner {
 public:
  /// Scans what `source` gives, whose first byte is at `offset` on `line` of the file. At offset 0
  /// a byte order mark is skipped, and an array's opening bracket is expected.
  TextScanner(
      std::unique_ptr<ByteSource> source, Framing framing, std::uint64_t offset, std::uint64_t line
  );

  /// Moves to the next record; false at the end of the file.
  Result<bool> Next(TextRecord& record);
  const ByteSource& source() const { return *source_; }
  /// How many bytes of text have been passed.
  std::uint64_t offset() const { return offset_ + next_; }

 private:
  enum class CsvState : std::uint8_t { kCellStart, kCell, kQuoted, kQuoteInQuoted };

  Status Begin();
  Status Refill();
  Result<bool> SkipToItem();
  Result<bool> SkipSpace();
  bool FindEnd();
  bool FindCsvEnd();
  bool FindItemEnd();
  bool is_blank(std::string_view text) const;
  // Moves next_ on to `end`, counting lines.
  void PassTo(std::size_t end);

  const std::unique_ptr<ByteSource> source_;
  const Framing framing_;
  std::vector<char> buffer_;
  std::size_t next_ = 0;     // the first byte not yet passed
  std::size_t scanned_ = 0;  // up to where the record's end has been looked for
  std::size_t filled_ = 0;
  std::uint64_t offset_;  // of buffer_[0]
  std::uint64_t line_;    // of buffer_[next_]
  bool begun_ = false;
  bool at_end_ = false;

  CsvState csv_state_ = CsvState::kCellStart;
  int depth_ = 0;  // of brackets in an item of an array
  bool in_string_ = false;
  bool escaped_ = false;
  bool array_ended_ = false;  // its closing bracket was passed, or its absence reported
};

}  // namespace millstream
