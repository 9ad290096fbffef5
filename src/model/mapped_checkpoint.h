// SPDX-License-Identifier: Apache-2.0
// What the formats build: a Checkpoint over mapped files. Checkpoint::Open picks the format.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "model/mapped_file.h"
#include "model/tensor_table.h"

namespace millstream {

class MappedCheckpoint final : public Checkpoint {
 public:
  const ModelConfig& config() const override { return model; }
  const TensorView* Find(std::string_view name) const override;
  /// Sets `hash` from `headers` and a sample of the files' bytes, and `size_bytes` from their
  /// sizes.
  void Identify(std::string_view headers);
  /// Adds an id to the stop tokens, once.
  void AddStopToken(std::int32_t token);

  ModelConfig model;
  TensorTable tensors;
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<std::vector<std::byte>> copies;  // of tensors that lie unaligned in their file
};

/// A failure of `path`, which stands before the message then.
Status InFile(const std::string& path, const Status& status);

/// Whether a special token of this text ends a text or a turn in well-known models.
bool EndsTurn(std::string_view token);

Result<std::shared_ptr<MappedCheckpoint>> OpenGguf(const std::string& path);
Result<std::shared_ptr<MappedCheckpoint>> OpenFolder(const std::string& path);
Result<std::shared_ptr<MappedCheckpoint>> OpenTokenizerFolder(const std::string& path);

}  // namespace millstream
