// SPDX-License-Identifier: Apache-2.0
#include "storage/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"

namespace millstream {
namespace {

constexpr std::uint64_t kErrorBytesMax = 64 << 10;
constexpr std::size_t kHeadersMax = 200;
constexpr std::size_t kIdleMax = 16;

struct Transfer {
  CURL* handle = nullptr;
  const HttpRequest& request;
  HttpReply& reply;
  std::size_t sent = 0;
  bool is_too_large = false;
};

std::size_t OnHeader(char* data, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) transfer.reply.headers.clear();  // after an interim reply
  const std::size_t colon = line.find(':');
  if (colon == line.npos || transfer.reply.headers.size() >= kHeadersMax) return size * count;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && std::strchr(" \t\r\n", value.front()) != nullptr) value.remove_prefix(1);
  while (!value.empty() && std::strchr(" \t\r\n", value.back()) != nullptr) value.remove_suffix(1);
  transfer.reply.headers[std::move(name)] = std::string(value);
  return size * count;
}

std::size_t OnBody(char* data, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  std::string& body = transfer.reply.body;
  const std::size_t bytes = size * count;
  long status = 0;
  curl_easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 300) {
    body.append(data, std::min<std::size_t>(bytes, kErrorBytesMax - body.size()));
    return bytes;
  }
  curl_off_t announced = 0;
  curl_easy_getinfo(transfer.handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
  const std::uint64_t whole =
      std::max(announced < 0 ? 0 : static_cast<std::uint64_t>(announced), body.size() + bytes);
  if (whole > transfer.request.body_bytes_max) {
    transfer.is_too_large = true;
    return 0;
  }
  body.reserve(whole);
  body.append(data, bytes);
  return bytes;
}

std::size_t OnSend(char* buffer, std::size_t size, std::size_t count, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const std::string_view left = transfer.request.body.substr(transfer.sent);
  const std::size_t bytes = std::min(left.size(), size * count);
  std::memcpy(buffer, left.data(), bytes);
  transfer.sent += bytes;
  return bytes;
}

int OnRewind(void* context, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Transfer*>(context)->sent = static_cast<std::size_t>(offset);
  return CURL_SEEKFUNC_OK;
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

void SetMethod(CURL* handle, Transfer& transfer) {
  const HttpRequest& request = transfer.request;
  if (request.method == "HEAD") {
    curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
  } else if (request.method == "PUT") {
    curl_easy_setopt(handle, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(
        handle, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size())
    );
    curl_easy_setopt(handle, CURLOPT_READFUNCTION, OnSend);
    curl_easy_setopt(handle, CURLOPT_READDATA, &transfer);
    curl_easy_setopt(handle, CURLOPT_SEEKFUNCTION, OnRewind);
    curl_easy_setopt(handle, CURLOPT_SEEKDATA, &transfer);
  } else if (request.method != "GET") {
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
}

void SetOptions(CURL* handle, const HttpOptions& options) {
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, options.connect_timeout_ms);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 100L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, options.stall_timeout_s);
  curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "millstream");
  if (!options.use_proxy) curl_easy_setopt(handle, CURLOPT_PROXY, "");
  if (!options.ca_bundle.empty()) {
    curl_easy_setopt(handle, CURLOPT_CAINFO, options.ca_bundle.c_str());
  }
}

using HeaderList = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

HeaderList ListOf(const std::vector<std::string>& headers) {
  // curl asks before it sends any body: a round trip more for each of our small ones.
  curl_slist* list = curl_slist_append(nullptr, "Expect:");
  MS_CHECK(list != nullptr);
  for (const std::string& header : headers) {
    list = curl_slist_append(list, header.c_str());
    MS_CHECK(list != nullptr);
  }
  return {list, curl_slist_free_all};
}

void Sign(CURL* handle, const AwsSigner& signer) {
  const std::string by = "aws:amz:" + signer.region + ":s3";
  curl_easy_setopt(handle, CURLOPT_AWS_SIGV4, by.c_str());
  curl_easy_setopt(handle, CURLOPT_USERNAME, signer.key_id.c_str());
  curl_easy_setopt(handle, CURLOPT_PASSWORD, signer.secret.c_str());
}

}  // namespace

const std::string& HttpReply::Header(const std::string& name) const {
  static const std::string kNone;
  const auto found = headers.find(name);
  return found == headers.end() ? kNone : found->second;
}

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {
  static const CURLcode kInitialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  MS_CHECK(kInitialized == CURLE_OK);
}

HttpClient::~HttpClient() {
  MutexLock lock(mutex_);
  for (void* handle : idle_) curl_easy_cleanup(handle);
}

HttpReply HttpClient::Send(const HttpRequest& request) {
  CURL* handle = nullptr;
  {
    MutexLock lock(mutex_);
    if (!idle_.empty()) {
      handle = idle_.back();
      idle_.pop_back();
    }
  }
  if (handle == nullptr) handle = curl_easy_init();
  HttpReply reply;
  if (handle == nullptr) {
    reply.end = HttpReply::End::kNotSent;
    reply.error = "no memory for a connection";
    return reply;
  }
  curl_easy_reset(handle);  // keeps its connections
  Transfer transfer{handle, request, reply};
  SetOptions(handle, options_);
  SetMethod(handle, transfer);
  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  if (request.signer != nullptr) Sign(handle, *request.signer);
  const HeaderList headers = ListOf(request.headers);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());

  const CURLcode code = curl_easy_perform(handle);
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &reply.status);
  reply.end = transfer.is_too_large ? HttpReply::End::kTooLarge : EndOf(code);
  if (code != CURLE_OK) reply.error = curl_easy_strerror(code);
  MutexLock lock(mutex_);
  if (idle_.size() < kIdleMax) {
    idle_.push_back(handle);
  } else {
    curl_easy_cleanup(handle);
  }
  return reply;
}

}  // namespace millstream
