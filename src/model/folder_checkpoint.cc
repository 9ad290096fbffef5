// SPDX-License-Identifier: Apache-2.0
#include "model/mapped_checkpoint.h"
namespace millstream {
Result<std::shared_ptr<MappedCheckpoint>> OpenFolder(const std::string&) {
  return Status::NotImplemented("folders are not supported yet; supported: GGUF files");
}
}  // namespace millstream
