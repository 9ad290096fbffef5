// SPDX-License-Identifier: Apache-2.0
#include "http/transfer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace millstream {
namespace {

constexpr std::uint64_t kErrorBytesMax = 64 << 10;
constexpr std::size_t kHeadersMax = 200;

// Where distributions keep the certificates that they trust. A libcurl that we brought along from
// one looks at its place only, and fails if there is no such file.
constexpr const char* kCertificates[] = {
    "/etc/ssl/certs/ca-certificates.crt",                 // Debian, Ubuntu, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  // Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",                             // SUSE
};

// The system's certificates, if they are not where libcurl looks; else null.
const char* CertificatesElsewhere(CURL* handle) {
  const auto exists = [](const char* path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  };
  const char* usual = nullptr;
  curl_easy_getinfo(handle, CURLINFO_CAINFO, &usual);
  if (usual == nullptr || exists(usual)) return nullptr;
  const auto* const found = std::ranges::find_if(kCertificates, exists);
  return found == std::end(kCertificates) ? nullptr : *found;
}

HttpReply::End EndOf(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return HttpReply::End::kDone;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
      return HttpReply::End::kNotSent;
    case CURLE_OPERATION_TIMEDOUT:
      return HttpReply::End::kTimeout;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_NOT_BUILT_IN:
      return HttpReply::End::kWrong;
    default:
      return HttpReply::End::kBroken;
  }
}

}  // namespace

const std::string& HttpReply::Header(const std::string& name) const {
  static const std::string kNone;
  const auto found = headers.find(name);
  return found == headers.end() ? kNone : found->second;
}

std::optional<std::int64_t> ParseHttpDate(const std::string& date) {
  const time_t at = curl_getdate(date.c_str(), nullptr);
  return at < 0 ? std::nullopt : std::optional<std::int64_t>(at);
}

void StartCurl() {
  static const CURLcode kInitialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  MS_CHECK(kInitialized == CURLE_OK);
}

Transfer::Transfer(CURL* handle, const HttpOptions& options, const HttpRequest& request)
    : handle_(handle),
      request_(request),
      headers_(nullptr, curl_slist_free_all),
      resends_(options.resends) {
  curl_easy_reset(handle_);  // keeps its connections
  SetOptions(options);
  SetMethod();
  SetHeaders();
  curl_easy_setopt(handle_, CURLOPT_URL, request_.url.c_str());
  curl_easy_setopt(handle_, CURLOPT_TIMEOUT_MS, request_.timeout_ms);
  curl_easy_setopt(handle_, CURLOPT_FRESH_CONNECT, request_.own_connection ? 1L : 0L);
  curl_easy_setopt(handle_, CURLOPT_FORBID_REUSE, request_.own_connection ? 1L : 0L);
  curl_easy_setopt(handle_, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(handle_, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(handle_, CURLOPT_PREREQFUNCTION, OnBegin);
  curl_easy_setopt(handle_, CURLOPT_PREREQDATA, this);
  if (request_.signer == nullptr) return;
  const std::string by = "aws:amz:" + request_.signer->region + ":s3";
  curl_easy_setopt(handle_, CURLOPT_AWS_SIGV4, by.c_str());
  curl_easy_setopt(handle_, CURLOPT_USERNAME, request_.signer->key_id.c_str());
  curl_easy_setopt(handle_, CURLOPT_PASSWORD, request_.signer->secret.c_str());
}

HttpReply Transfer::Finish(CURLcode code) {
  curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &reply_.status);
  reply_.end = is_too_large_ ? HttpReply::End::kTooLarge : EndOf(code);
  // libcurl has one code for a connection that takes too long and for a request that does, and one
  // for a URL of another protocol and for an answer in one.
  if (code == CURLE_OPERATION_TIMEDOUT && num_begun_ == 0) reply_.end = HttpReply::End::kNotSent;
  if (code == CURLE_UNSUPPORTED_PROTOCOL && num_begun_ > 0) reply_.end = HttpReply::End::kBroken;
  // It had been sent, over a connection that broke.
  if (reply_.end == HttpReply::End::kNotSent && num_begun_ > 0 && !resends_) {
    reply_.end = HttpReply::End::kBroken;
  }
  long error = 0;
  curl_easy_getinfo(handle_, CURLINFO_OS_ERRNO, &error);
  reply_.is_refused = reply_.end == HttpReply::End::kNotSent && error == ECONNREFUSED;
  if (code != CURLE_OK) reply_.error = curl_easy_strerror(code);
  return std::move(reply_);
}

std::size_t Transfer::OnHeader(char* data, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) transfer.reply_.headers.clear();  // after an interim reply
  const std::size_t colon = line.find(':');
  if (colon == line.npos || transfer.reply_.headers.size() >= kHeadersMax) return size * count;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && std::strchr(" \t\r\n", value.front()) != nullptr) value.remove_prefix(1);
  while (!value.empty() && std::strchr(" \t\r\n", value.back()) != nullptr) value.remove_suffix(1);
  transfer.reply_.headers[std::move(name)] = std::string(value);
  return size * count;
}

std::size_t Transfer::OnBody(char* data, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  std::string& body = transfer.reply_.body;
  const std::size_t bytes = size * count;
  long status = 0;
  curl_easy_getinfo(transfer.handle_, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 300) {
    body.append(data, std::min<std::size_t>(bytes, kErrorBytesMax - body.size()));
    return bytes;
  }
  curl_off_t announced = 0;
  curl_easy_getinfo(transfer.handle_, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
  const std::uint64_t whole =
      std::max(announced < 0 ? 0 : static_cast<std::uint64_t>(announced), body.size() + bytes);
  if (whole > transfer.request_.body_bytes_max) {
    transfer.is_too_large_ = true;
    return 0;
  }
  body.reserve(whole);
  body.append(data, bytes);
  return bytes;
}

// Called when a connection stands, before the request is sent: more than once if libcurl sends it
// again over another.
int Transfer::OnBegin(void* context, char*, char*, int, int) {
  auto& transfer = *static_cast<Transfer*>(context);
  const bool is_again = transfer.num_begun_++ > 0;
  return is_again && !transfer.resends_ ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

std::size_t Transfer::OnSend(char* buffer, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const std::string_view left = transfer.request_.body.substr(transfer.sent_);
  const std::size_t bytes = std::min(left.size(), size * count);
  std::memcpy(buffer, left.data(), bytes);
  transfer.sent_ += bytes;
  return bytes;
}

int Transfer::OnRewind(void* context, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Transfer*>(context)->sent_ = static_cast<std::size_t>(offset);
  return CURL_SEEKFUNC_OK;
}

void Transfer::SetMethod() {
  if (request_.method == "HEAD") {
    curl_easy_setopt(handle_, CURLOPT_NOBODY, 1L);
  } else if (request_.method == "PUT") {
    curl_easy_setopt(handle_, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(
        handle_, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.body.size())
    );
    curl_easy_setopt(handle_, CURLOPT_READFUNCTION, OnSend);
    curl_easy_setopt(handle_, CURLOPT_READDATA, this);
    curl_easy_setopt(handle_, CURLOPT_SEEKFUNCTION, OnRewind);
    curl_easy_setopt(handle_, CURLOPT_SEEKDATA, this);
  } else if (request_.method == "POST") {
    curl_easy_setopt(
        handle_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size())
    );
    curl_easy_setopt(handle_, CURLOPT_POSTFIELDS, request_.body.data());  // not copied
  } else if (request_.method != "GET") {
    curl_easy_setopt(handle_, CURLOPT_CUSTOMREQUEST, request_.method.c_str());
  }
}

void Transfer::SetOptions(const HttpOptions& options) {
  curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle_, CURLOPT_QUICK_EXIT, 1L);  // not to wait for a resolver at the end
  curl_easy_setopt(handle_, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle_, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle_, CURLOPT_CONNECTTIMEOUT_MS, options.connect_timeout_ms);
  if (options.stall_timeout_s > 0) {
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_LIMIT, 100L);
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_TIME, options.stall_timeout_s);
  }
  curl_easy_setopt(handle_, CURLOPT_BUFFERSIZE, options.buffer_bytes);
  curl_easy_setopt(handle_, CURLOPT_TCP_KEEPALIVE, 1L);
  // Without TLS all would wait for the first reply, to learn that connections are not shared.
  if (options.is_multiplexed && request_.url.starts_with("https://")) {
    curl_easy_setopt(handle_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    curl_easy_setopt(handle_, CURLOPT_PIPEWAIT, 1L);  // one connection, once it is there
  } else {
    curl_easy_setopt(handle_, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  }
  curl_easy_setopt(handle_, CURLOPT_USERAGENT, "millstream");
  // Servers close connections that are idle for long, most after five seconds: better not to learn
  // that from a request that broke.
  if (!options.resends) curl_easy_setopt(handle_, CURLOPT_MAXAGE_CONN, 4L);
  if (!options.use_proxy) curl_easy_setopt(handle_, CURLOPT_PROXY, "");
  if (!options.ca_bundle.empty()) {
    curl_easy_setopt(handle_, CURLOPT_CAINFO, options.ca_bundle.c_str());
  } else {
    static const char* const kElsewhere = CertificatesElsewhere(handle_);
    if (kElsewhere != nullptr) curl_easy_setopt(handle_, CURLOPT_CAINFO, kElsewhere);
  }
}

void Transfer::SetHeaders() {
  // curl asks before it sends any body: a round trip more for each of our small ones.
  headers_.reset(curl_slist_append(nullptr, "Expect:"));
  MS_CHECK(headers_ != nullptr);
  for (const std::string& header : request_.headers) {
    MS_CHECK(curl_slist_append(headers_.get(), header.c_str()) != nullptr);
  }
  curl_easy_setopt(handle_, CURLOPT_HTTPHEADER, headers_.get());
}

}  // namespace millstream
