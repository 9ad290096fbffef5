// SPDX-License-Identifier: Apache-2.0
// What the two text formats share: gathering rows into large writes, and reading their files back.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrow/array/builder_base.h"
#include "arrow/io/interfaces.h"
#include "data/format_files.h"

namespace millstream {

/// Text on its way to a sink.
class TextSink {
 public:
  explicit TextSink(SinkPtr sink) : sink_(std::move(sink)) {}

  /// Text to append to.
  std::string& text() { return text_; }
  /// Called between rows: writes once enough has gathered.
  Status RowDone() { return text_.size() < kWriteBytes ? Status::OK() : Flush(); }
  Status Flush();

 private:
  static constexpr std::size_t kWriteBytes = std::size_t{1} << 20;

  const SinkPtr sink_;
  std::string text_;
};

using RowBuilders = std::vector<std::unique_ptr<arrow::ArrayBuilder>>;

/// Appends the row at the start of `text` to the builders and returns its length with its line end;
/// nullopt, with nothing appended, if `text` holds no whole row.
using ParseRow =
    std::function<Result<std::optional<std::size_t>>(std::string_view text, RowBuilders& builders)>;

/// Reads a file that is `header`, then rows.
Result<BatchReaderPtr> ReadWrittenText(
    SourcePtr file, const std::string& name, SchemaPtr schema, std::string header, ParseRow parse
);

}  // namespace millstream
