// SPDX-License-Identifier: Apache-2.0
#include "data/json_document.h"

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/utf8.h"

namespace millstream {
namespace {

constexpr std::size_t kPadding = 32;  // the parser reads 16 bytes at a time
constexpr std::size_t kTextBytesMax = std::size_t{1} << 30;

// An escape such as \udc00 alone makes three bytes that are no UTF-8; the parser lets it pass.
bool HasLoneSurrogate(std::string_view text) {
  for (std::size_t i = text.find('\xED'); i != text.npos; i = text.find('\xED', i + 1)) {
    if (i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) >= 0xA0) return true;
  }
  return false;
}

}  // namespace

// Turns the parser's events into nodes. Stops the parser by returning false.
class JsonDocument::Handler {
 public:
  Handler(JsonDocument& document, bool validate, int depth_max)
      : document_(document), validate_(validate), depth_max_(depth_max) {}

  bool Null() { return Add(JsonKind::kNull); }
  bool Bool(bool value) {
    Add(JsonKind::kBool);
    document_.nodes_.back().boolean = value;
    return true;
  }
  bool RawNumber(const char* text, rapidjson::SizeType length, bool) {
    return Add(JsonKind::kNumber, text, length);
  }
  bool String(const char* text, rapidjson::SizeType length, bool) {
    if (validate_ && HasLoneSurrogate({text, length})) return Stop("has half of a surrogate pair");
    return Add(JsonKind::kString, text, length);
  }
  bool Key(const char* text, rapidjson::SizeType length, bool copy) {
    return String(text, length, copy);
  }
  bool StartObject() { return Open(JsonKind::kObject); }
  bool StartArray() { return Open(JsonKind::kArray); }
  bool EndObject(rapidjson::SizeType members) { return End(members); }
  bool EndArray(rapidjson::SizeType items) { return End(items); }

  // Numbers come as RawNumber.
  bool Int(int) { return false; }
  bool Uint(unsigned) { return false; }
  bool Int64(std::int64_t) { return false; }
  bool Uint64(std::uint64_t) { return false; }
  bool Double(double) { return false; }

  const char* reason() const { return reason_; }

 private:
  bool Stop(const char* reason) {
    reason_ = reason;
    return false;
  }
  bool Add(JsonKind kind, const char* text = nullptr, std::size_t length = 0) {
    const auto next = static_cast<std::uint32_t>(document_.nodes_.size() + 1);
    const auto offset =
        text == nullptr ? 0 : static_cast<std::uint32_t>(text - document_.buffer_.data());
    document_.nodes_.push_back({kind, false, next, offset, static_cast<std::uint32_t>(length)});
    return true;
  }
  bool Open(JsonKind kind) {
    if (depth_ == depth_max_) return Stop("nests deeper than 128");
    open_[static_cast<std::size_t>(depth_++)] = static_cast<std::uint32_t>(document_.nodes_.size());
    return Add(kind);
  }
  bool End(rapidjson::SizeType children) {
    Node& node = document_.nodes_[open_[static_cast<std::size_t>(--depth_)]];
    node.next = static_cast<std::uint32_t>(document_.nodes_.size());
    node.offset = children;
    return true;
  }

  JsonDocument& document_;
  const bool validate_;
  const int depth_max_;
  const char* reason_ = nullptr;
  int depth_ = 0;
  std::array<std::uint32_t, kJsonDepthMax + 1> open_{};
};

Status JsonDocument::Parse(std::string_view json, Utf8 utf8) {
  return Parse(json, utf8, kJsonDepthMax);
}

Status JsonDocument::ParseRow(std::string_view json, Utf8 utf8) {
  return Parse(json, utf8, kJsonDepthMax + 1);
}

Status JsonDocument::Parse(std::string_view json, Utf8 utf8, int depth_max) {
  nodes_.clear();
  if (json.size() > kTextBytesMax) return Status::Invalid("is longer than 1 GiB");
  const bool validate = utf8 == Utf8::kValidate;
  if (validate && !IsValidUtf8(json)) return Status::Invalid("is not valid UTF-8");
  buffer_.resize(std::max(buffer_.size(), json.size() + kPadding));
  std::copy(json.begin(), json.end(), buffer_.begin());
  std::fill_n(buffer_.begin() + static_cast<std::ptrdiff_t>(json.size()), kPadding, '\0');

  constexpr unsigned kFlags = rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseInsituFlag;
  rapidjson::InsituStringStream stream(buffer_.data());
  rapidjson::Reader reader;
  Handler handler(*this, validate, depth_max);
  const rapidjson::ParseResult parsed = reader.Parse<kFlags>(stream, handler);
  if (parsed.IsError()) {
    if (handler.reason() != nullptr) return Status::Invalid(handler.reason());
    std::string_view reason = rapidjson::GetParseError_En(parsed.Code());
    if (reason.ends_with('.')) reason.remove_suffix(1);
    return Status::Invalid("is not valid JSON: ", reason, " (byte ", parsed.Offset() + 1, ")");
  }
  // A NUL byte ends the text for the parser.
  if (stream.Tell() != json.size()) {
    return Status::Invalid("is not valid JSON: a NUL byte (byte ", stream.Tell() + 1, ")");
  }
  return Status::OK();
}

}  // namespace millstream
