// SPDX-License-Identifier: Apache-2.0
// One JSON text, parsed into a flat list of nodes that keeps what a row may not lose: the digits of
// every number, the order of keys, and keys that stand twice.
//
// A document owns its memory and reuses it from text to text, so parsing a row costs no allocation.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/parse_json.h"
#include "base/status.h"

namespace millstream {

class JsonDocument;

enum class JsonKind : std::uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

/// One value of a document. A view: valid until the document parses another text.
class JsonNode {
 public:
  JsonKind kind() const;
  /// REQUIRES: a boolean.
  bool boolean() const;
  /// The characters of a string, unescaped; a number as it was written; otherwise empty.
  std::string_view text() const;
  /// Calls `visit(JsonNode)` for each item of an array until it returns an error.
  template <typename Visit>
  Status ForEachItem(Visit visit) const;
  /// Calls `visit(std::string_view key, JsonNode)` for each member of an object until it returns an
  /// error.
  template <typename Visit>
  Status ForEachMember(Visit visit) const;
  /// How many items or members it has.
  std::int64_t size() const;

 private:
  friend class JsonDocument;
  JsonNode(const JsonDocument& document, std::uint32_t index)
      : document_(&document), index_(index) {}

  const JsonDocument* document_;
  std::uint32_t index_;
};

/// One thread at a time.
class JsonDocument {
 public:
  enum class Utf8 { kValidate, kTrust };

  JsonDocument() = default;
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  /// Parses one text with nothing but white space around it, at most kJsonDepthMax deep. Invalid
  /// says what is wrong and at which byte.
  Status Parse(std::string_view json, Utf8 utf8 = Utf8::kValidate);
  /// The same of a row's text: each of its values may be so deep, as any that a row is written of.
  Status ParseRow(std::string_view json, Utf8 utf8 = Utf8::kValidate);
  /// The value of the last text. REQUIRES: it was parsed without an error.
  JsonNode root() const { return {*this, 0}; }

 private:
  friend class JsonNode;
  class Handler;
  Status Parse(std::string_view json, Utf8 utf8, int depth_max);
  struct Node {
    JsonKind kind;
    bool boolean;
    std::uint32_t next;  // the node after this value
    std::uint32_t
        offset;  // of its characters in buffer_; for an array or object: how many children
    std::uint32_t length;
  };

  std::vector<char> buffer_;
  std::vector<Node> nodes_;
};

inline JsonKind JsonNode::kind() const {
  return document_->nodes_[index_].kind;
}
inline bool JsonNode::boolean() const {
  return document_->nodes_[index_].boolean;
}
inline std::string_view JsonNode::text() const {
  const JsonDocument::Node& node = document_->nodes_[index_];
  return {document_->buffer_.data() + node.offset, node.length};
}
inline std::int64_t JsonNode::size() const {
  return document_->nodes_[index_].offset;
}

template <typename Visit>
Status JsonNode::ForEachItem(Visit visit) const {
  const std::uint32_t end = document_->nodes_[index_].next;
  for (std::uint32_t i = index_ + 1; i < end; i = document_->nodes_[i].next) {
    MS_RETURN_NOT_OK(visit(JsonNode(*document_, i)));
  }
  return Status::OK();
}

template <typename Visit>
Status JsonNode::ForEachMember(Visit visit) const {
  const std::uint32_t end = document_->nodes_[index_].next;
  for (std::uint32_t i = index_ + 1; i < end; i = document_->nodes_[i + 1].next) {
    MS_RETURN_NOT_OK(visit(JsonNode(*document_, i).text(), JsonNode(*document_, i + 1)));
  }
  return Status::OK();
}

}  // namespace millstream
