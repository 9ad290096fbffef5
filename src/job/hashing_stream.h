// SPDX-License-Identifier: Apache-2.0
// Hashes what passes through to a file.

#pragma once

#include <memory>
#include <string>

#include "arrow/io/interfaces.h"
#include "base/status.h"

namespace millstream {

/// One thread.
class HashingStream final : public arrow::io::OutputStream {
 public:
  explicit HashingStream(std::shared_ptr<arrow::io::OutputStream> sink);
  ~HashingStream() override;

  Status Write(const void* data, std::int64_t size) override;
  Status Close() override;
  Status Flush() override { return sink_->Flush(); }
  Result<std::int64_t> Tell() const override { return sink_->Tell(); }
  bool closed() const override { return sink_->closed(); }

  /// xxh3 of all that was written, 16 hexadecimal digits.
  std::string Hex() const;

 private:
  struct State;
  std::shared_ptr<arrow::io::OutputStream> sink_;
  std::unique_ptr<State> state_;
};

}  // namespace millstream
