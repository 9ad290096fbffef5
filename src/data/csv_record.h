// SPDX-License-Identifier: Apache-2.0
// One CSV or TSV record, split into its cells (RFC 4180).

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace millstream {

/// Reuses its memory from record to record. One thread.
class CsvRecord {
 public:
  struct Cell {
    std::string_view text;
    bool quoted = false;  // an empty cell is null, a quoted one an empty string
  };

  explicit CsvRecord(char delimiter) : delimiter_(delimiter) {}

  /// Splits `record`, which must outlive the cells. A quote opens a quoted cell only where the cell
  /// begins; Invalid (with why) if text follows the closing quote, or none closes it.
  Status Split(std::string_view record);
  const std::vector<Cell>& cells() const { return cells_; }

 private:
  const char delimiter_;
  std::vector<Cell> cells_;
  std::string unescaped_;  // the cells that held doubled quotes
};

}  // namespace millstream
