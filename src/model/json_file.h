// SPDX-License-Identifier: Apache-2.0
// The JSON of a model's folder: read whole, with a bound, and looked at with types checked.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "nlohmann/json.hpp"

namespace millstream {

/// The bytes of a file, or an error that is IsIOError if it cannot be read and Invalid if it is
/// longer than `bytes_max`.
Result<std::string> ReadText(const std::string& path, std::uint64_t bytes_max);

/// Parses an object; text that is not JSON, or another kind of value, or has a key twice, is
/// Invalid. `skip`: a key of the outermost object whose value is left out.
Result<nlohmann::json> ParseObject(std::string_view text, std::string_view skip = {});

/// An object with the name of its file, for messages. A missing or null member yields nullopt; one
/// of another type is Invalid.
class JsonObject {
 public:
  JsonObject(std::string name, nlohmann::json value)
      : name_(std::move(name)), value_(std::move(value)) {}

  /// Reads the file `name` in `folder`.
  static Result<JsonObject> Read(
      const std::string& folder, const std::string& name, std::uint64_t bytes_max
  );

  Result<std::optional<std::int64_t>> Integer(const char* key) const;
  Result<std::int64_t> RequiredInteger(const char* key) const;
  Result<std::optional<double>> Number(const char* key) const;
  Result<bool> Bool(const char* key, bool missing) const;
  Result<std::string> Text(const char* key) const;  // missing: empty
  /// The member, or null if it is missing or null.
  const nlohmann::json* Find(const char* key) const;
  Status WrongType(const char* key, const char* expected) const;

  /// The object's text, in one form for one meaning.
  std::string Dump() const { return value_.dump(); }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  nlohmann::json value_;
};

}  // namespace millstream
