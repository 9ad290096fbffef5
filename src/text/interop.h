// SPDX-License-Identifier: Apache-2.0
// Small conversions between our types and those of text_ffi.h. Private to this folder.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/text_ffi.h"

namespace millstream {

inline MsView ViewOf(std::string_view text) {
  return {text.data(), text.size()};
}
inline std::string_view TextOf(MsView view) {
  return {view.data, view.size};
}

/// Takes over what a call wrote, and gives it back.
inline std::string Take(MsBytes bytes) {
  std::string text(bytes.data, bytes.size);
  ms_bytes_free(bytes);
  return text;
}

inline Status Failure(MsBytes error) {
  return Status::Invalid(Take(error));
}

/// The lines of a text that is empty or a list joined by line feeds.
inline std::vector<std::string> Lines(MsView joined) {
  std::vector<std::string> lines;
  std::string_view rest = TextOf(joined);
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    lines.emplace_back(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return lines;
}

}  // namespace millstream
