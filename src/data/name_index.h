// SPDX-License-Identifier: Apache-2.0
// Column names to their places, fast when rows name them in the same order as the last one.

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace millstream {

/// Thread-compatible. Places are 0, 1, ... in order of Add.
class NameIndex {
 public:
  /// The place of `name`. `guess` is tried first: one beyond the place found last.
  std::optional<std::size_t> Find(std::string_view name, std::size_t guess) const {
    if (guess < names_.size() && names_[guess] == name) return guess;
    const auto found = places_.find(name);
    if (found == places_.end()) return std::nullopt;
    return found->second;
  }
  /// REQUIRES: a new name.
  std::size_t Add(std::string name) {
    places_.emplace(name, names_.size());
    names_.push_back(std::move(name));
    return names_.size() - 1;
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t, Hash, std::equal_to<>> places_;
};

}  // namespace millstream
