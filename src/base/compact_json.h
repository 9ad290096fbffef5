// SPDX-License-Identifier: Apache-2.0
// JSON as text.

#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace millstream {

/// On one line, without blanks. Texts may come from anywhere: bytes that are no UTF-8 are replaced.
template <typename Json>
std::string CompactJson(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace millstream
