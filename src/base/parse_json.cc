// SPDX-License-Identifier: Apache-2.0
#include "base/parse_json.h"

#include <cstddef>

namespace millstream {

// Exact up to where a text ceases to be JSON, and no parser goes beyond.
bool NestsDeeper(std::string_view json, int depth_max) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > depth_max) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace millstream
