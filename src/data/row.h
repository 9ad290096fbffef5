// SPDX-License-Identifier: Apache-2.0
// The unit of input and output, and what can go wrong with one.

#pragma once

#include <cstdint>
#include <string>

namespace millstream {

/// Names a row for good: its file's number in the snapshot, and its record's number in the file.
/// Records are physical ones, counted from 1; malformed ones count too.
struct RowId {
  std::int32_t file = 0;
  std::int64_t record = 0;
  friend auto operator<=>(const RowId&, const RowId&) = default;
};

/// Why a row failed. `step` is the id of the step that failed it, "read" for the reader.
/// `code` is one of docs/errors.md; the message holds no counts, times or addresses of the run.
struct RowError {
  std::string step;
  std::string code;
  std::string message;
  /// If it goes back to an HTTP answer, or is best told as one: the status code, a space, and the
  /// answer's error object as JSON. Kept by format: openai-batch alone.
  std::string answer = {};
};

}  // namespace millstream
