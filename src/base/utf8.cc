// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include "arrow/util/utf8.h"

namespace millstream {

bool IsValidUtf8(std::string_view bytes) {
  static const bool initialized = (arrow::util::InitializeUTF8(), true);
  return initialized && arrow::util::ValidateUTF8(bytes);
}

}  // namespace millstream
