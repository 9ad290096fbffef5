// SPDX-License-Identifier: Apache-2.0
#include "model/gguf_metadata.h"

#include <limits>

namespace millstream {

Result<std::optional<std::int64_t>> GgufMetadata::Integer(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = value->is_array ? std::nullopt : value->Integer();
  if (!integer) return Status::Invalid("metadata key ", key, " is not one integer");
  return integer;
}

Result<std::int64_t> GgufMetadata::RequiredInteger(const std::string& key) const {
  MS_ASSIGN_OR_RETURN(const auto value, Integer(key));
  if (!value) return Status::Invalid("metadata key ", key, " is missing");
  return *value;
}

Result<std::optional<float>> GgufMetadata::Float(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = value->is_array ? std::nullopt : value->Number();
  if (!number) return Status::Invalid("metadata key ", key, " is not one number");
  return static_cast<float>(*number);
}

Result<bool> GgufMetadata::Bool(const std::string& key, bool missing) const {
  MS_ASSIGN_OR_RETURN(const auto value, Integer(key));
  return value ? *value != 0 : missing;
}

Result<std::string_view> GgufMetadata::Text(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::string_view();
  if (value->is_array || value->type != GgufType::kString) {
    return Status::Invalid("metadata key ", key, " is not a text");
  }
  return value->texts[0];
}

Result<std::vector<std::string_view>> GgufMetadata::Texts(const std::string& key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::vector<std::string_view>();
  if (!value->is_array || value->type != GgufType::kString) {
    return Status::Invalid("metadata key ", key, " is not a list of texts");
  }
  return value->texts;
}

Result<std::vector<std::int32_t>> GgufMetadata::Integers(const std::string& key, std::size_t count)
    const {
  return Numbers<std::int32_t>(key, count);
}

Result<std::vector<float>> GgufMetadata::Floats(const std::string& key, std::size_t count) const {
  return Numbers<float>(key, count);
}

template <typename T>
Result<std::vector<T>> GgufMetadata::Numbers(const std::string& key, std::size_t count) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::vector<T>();
  if (!value->is_array || value->type == GgufType::kString || value->count != count) {
    return Status::Invalid("metadata key ", key, " is not a list of ", count, " numbers");
  }
  std::vector<T> numbers(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = value->Number(i);
    if (!number || !(*number >= std::numeric_limits<T>::lowest()) ||
        !(*number <= std::numeric_limits<T>::max())) {
      return Status::Invalid("metadata key ", key, " has a number out of range");
    }
    numbers[i] = static_cast<T>(*number);
  }
  return numbers;
}

const GgufValue* GgufMetadata::Find(const std::string& key) const {
  const auto found = header_.metadata.find(key);
  return found == header_.metadata.end() ? nullptr : &found->second;
}

}  // namespace millstream
