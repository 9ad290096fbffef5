// SPDX-License-Identifier: Apache-2.0
#include "data/csv_record.h"

namespace millstream {

Status CsvRecord::Split(std::string_view record) {
  cells_.clear();
  unescaped_.clear();
  unescaped_.reserve(record.size());  // so that views into it stay good
  std::size_t i = 0;
  for (;;) {
    if (i == record.size() || record[i] != '"') {
      const std::size_t end = std::min(record.find(delimiter_, i), record.size());
      cells_.push_back({record.substr(i, end - i), false});
      i = end;
    } else {
      const std::size_t begin = ++i;
      const std::size_t unescaped = unescaped_.size();
      std::size_t copied = begin;  // up to where the cell's text stands in unescaped_
      for (;; i += 2) {
        i = record.find('"', i);
        if (i == record.npos) return Status::Invalid("a quote is opened and never closed");
        if (i + 1 == record.size() || record[i + 1] != '"') break;
        unescaped_.append(record, copied, i + 1 - copied);
        copied = i + 2;
      }
      if (copied == begin) {
        cells_.push_back({record.substr(begin, i - begin), true});
      } else {
        unescaped_.append(record, copied, i - copied);
        cells_.push_back({std::string_view(unescaped_).substr(unescaped), true});
      }
      ++i;
      if (i < record.size() && record[i] != delimiter_) {
        return Status::Invalid("text follows the closing quote of cell ", cells_.size());
      }
    }
    if (i == record.size()) return Status::OK();
    ++i;
  }
}

}  // namespace millstream
