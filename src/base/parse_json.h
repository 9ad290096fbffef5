// SPDX-License-Identifier: Apache-2.0
// JSON that anyone may have written: a server, a store, a row.

#pragma once

#include <string_view>

namespace millstream {

/// How deep arrays and objects may nest.
inline constexpr int kJsonDepthMax = 128;

/// Whether a JSON text has more than `depth_max` arrays and objects open at once.
bool NestsDeeper(std::string_view json, int depth_max = kJsonDepthMax);

/// The value of a text, a nlohmann one; discarded if the text is no JSON or nests deeper. Their
/// parser has no bound, and copying, comparing or writing what it gave overflows the stack.
template <typename Json>
Json ParseJson(std::string_view text, int depth_max = kJsonDepthMax) {
  if (NestsDeeper(text, depth_max)) return Json(Json::value_t::discarded);
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

/// What an object has under `key`; null if it has nothing there, or is none.
template <typename Json>
  requires requires { typename Json::value_t; }  // a nlohmann one
const Json& Member(const Json& json, const char* key) {
  static const Json kNone;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found == json.end() ? kNone : *found;
}

}  // namespace millstream
