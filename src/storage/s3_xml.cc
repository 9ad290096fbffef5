// SPDX-License-Identifier: Apache-2.0
#include "storage/s3_xml.h"

#include <expat.h>

#include <charconv>
#include <functional>
#include <memory>
#include <utility>

namespace millstream {
namespace {

constexpr std::size_t kTextBytesMax = 16 << 10;  // a key has up to 1,024 bytes, each up to 6 here
constexpr std::size_t kDepthMax = 16;

// Calls back with the path ("/ListBucketResult/Contents/Key") and the text of each element as it
// ends.
class XmlWalk {
 public:
  using OnElement = std::function<bool(const std::string& path, const std::string& text)>;

  explicit XmlWalk(OnElement on_element) : on_element_(std::move(on_element)) {}

  // False if it is not well formed, has a document type, is too deep, or a callback said so.
  bool Parse(std::string_view xml) {
    const std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser(
        XML_ParserCreate(nullptr), XML_ParserFree
    );
    if (parser == nullptr || xml.size() > (std::size_t{1} << 30)) return false;
    parser_ = parser.get();
    XML_SetUserData(parser_, this);
    XML_SetElementHandler(parser_, Start, End);
    XML_SetCharacterDataHandler(parser_, Text);
    XML_SetStartDoctypeDeclHandler(parser_, Doctype);
    return XML_Parse(parser_, xml.data(), static_cast<int>(xml.size()), XML_TRUE) == XML_STATUS_OK;
  }

 private:
  static XmlWalk& Of(void* user) { return *static_cast<XmlWalk*>(user); }
  void Stop() { XML_StopParser(parser_, XML_FALSE); }

  static void Start(void* user, const XML_Char* name, const XML_Char** /*attributes*/) {
    XmlWalk& walk = Of(user);
    if (++walk.depth_ > kDepthMax) return walk.Stop();
    walk.path_ += '/';
    walk.path_ += name;
    walk.text_.clear();
  }
  static void End(void* user, const XML_Char* /*name*/) {
    XmlWalk& walk = Of(user);
    if (!walk.on_element_(walk.path_, walk.text_)) return walk.Stop();
    walk.path_.resize(walk.path_.rfind('/'));
    walk.text_.clear();
    --walk.depth_;
  }
  static void Text(void* user, const XML_Char* text, int size) {
    XmlWalk& walk = Of(user);
    walk.text_.append(text, static_cast<std::size_t>(size));
    if (walk.text_.size() > kTextBytesMax) walk.Stop();
  }
  static void Doctype(
      void* user,
      const XML_Char* /*name*/,
      const XML_Char* /*system*/,
      const XML_Char* /*public_id*/,
      int /*has_internal*/
  ) {
    Of(user).Stop();
  }

  const OnElement on_element_;
  XML_Parser parser_ = nullptr;
  std::string path_, text_;
  std::size_t depth_ = 0;
};

// What stands behind "%2B", and behind "+", in keys that are encoded as those of HTML forms are.
std::string Decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* const digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      decoded += static_cast<char>(byte);
      i += 2;
    } else {
      decoded += text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

}  // namespace

Status ParseS3Listing(std::string_view xml, StoreReply& reply) {
  constexpr std::size_t kEntriesMax = 10'000;  // S3 gives 1,000 a page
  bool is_listing = false;
  bool is_truncated = false;
  bool is_encoded = false;
  StoredObject object;
  XmlWalk walk([&](const std::string& path, const std::string& text) {
    constexpr std::string_view kRoot = "/ListBucketResult";
    if (!path.starts_with(kRoot)) return false;
    const std::string_view name = std::string_view(path).substr(kRoot.size());
    if (name.empty()) {
      is_listing = true;
    } else if (name == "/IsTruncated") {
      is_truncated = text == "true";
    } else if (name == "/EncodingType") {
      is_encoded = text == "url";
    } else if (name == "/NextContinuationToken") {
      reply.next_page = text;
    } else if (name == "/CommonPrefixes/Prefix") {
      reply.folders.push_back(text);
    } else if (name == "/Contents/Key") {
      object.key = text;
    } else if (name == "/Contents/ETag") {
      // Some stores leave out the quotes here that are part of it elsewhere.
      object.etag = text.empty() || text.ends_with('"') ? text : '"' + text + '"';
    } else if (name == "/Contents/Size") {
      const char* const end = text.data() + text.size();
      const auto [stop, error] = std::from_chars(text.data(), end, object.size_bytes);
      if (error != std::errc() || stop != end) return false;
    } else if (name == "/Contents") {
      if (object.key.empty()) return false;
      reply.objects.push_back(std::exchange(object, {}));
    }
    return reply.objects.size() + reply.folders.size() <= kEntriesMax;
  });
  if (!walk.Parse(xml) || !is_listing || is_truncated == reply.next_page.empty()) {
    return Status::Invalid("the object store's listing cannot be read");
  }
  if (is_encoded) {
    for (StoredObject& listed : reply.objects) listed.key = Decoded(listed.key);
    for (std::string& folder : reply.folders) folder = Decoded(folder);
  }
  return Status::OK();
}

S3Error ParseS3Error(std::string_view xml) {
  S3Error error;
  XmlWalk walk([&](const std::string& path, const std::string& text) {
    if (path == "/Error/Code") error.code = text;
    if (path == "/Error/Message") error.message = text;
    if (path == "/Error/Region") error.region = text;
    return true;
  });
  if (!walk.Parse(xml)) return {};
  return error;
}

}  // namespace millstream
