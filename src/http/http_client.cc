// SPDX-License-Identifier: Apache-2.0
#include "http/http_client.h"

#include <utility>

#include "http/transfer.h"

namespace millstream {
namespace {

constexpr std::size_t kIdleMax = 16;

}  // namespace

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {
  StartCurl();
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
  if (handle == nullptr) {
    HttpReply reply;
    reply.end = HttpReply::End::kNotSent;
    reply.error = "no memory for a connection";
    return reply;
  }
  Transfer transfer(handle, options_, request);
  HttpReply reply = transfer.Finish(curl_easy_perform(handle));
  MutexLock lock(mutex_);
  if (idle_.size() < kIdleMax) {
    idle_.push_back(handle);
  } else {
    curl_easy_cleanup(handle);
  }
  return reply;
}

}  // namespace millstream
