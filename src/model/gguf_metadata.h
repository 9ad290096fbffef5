// SPDX-License-Identifier: Apache-2.0
// The metadata of a GGUF file by key, with the checks on a value's type.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/gguf.h"

namespace millstream {

/// A view of a header. A missing key yields nullopt, or is empty; a value of another type is
/// Invalid.
class GgufMetadata {
 public:
  explicit GgufMetadata(const GgufHeader& header) : header_(header) {}

  Result<std::optional<std::int64_t>> Integer(const std::string& key) const;
  Result<std::int64_t> RequiredInteger(const std::string& key) const;
  Result<std::optional<float>> Float(const std::string& key) const;
  Result<bool> Bool(const std::string& key, bool missing) const;
  Result<std::string_view> Text(const std::string& key) const;
  Result<std::vector<std::string_view>> Texts(const std::string& key) const;
  /// A list of numbers, one a token.
  Result<std::vector<std::int32_t>> Integers(const std::string& key, std::size_t count) const;
  Result<std::vector<float>> Floats(const std::string& key, std::size_t count) const;

 private:
  template <typename T>
  Result<std::vector<T>> Numbers(const std::string& key, std::size_t count) const;
  const GgufValue* Find(const std::string& key) const;

  const GgufHeader& header_;
};

}  // namespace millstream
