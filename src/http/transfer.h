// SPDX-License-Identifier: Apache-2.0
// One request on its way through a libcurl handle.

#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <memory>

#include "http/http.h"

namespace millstream {

/// Sets a handle up for one request. Must stay where it is, as must the request, until Finish().
class Transfer {
 public:
  Transfer(CURL* handle, const HttpOptions& options, const HttpRequest& request);
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// What came of it, once libcurl is done with the handle.
  HttpReply Finish(CURLcode code);

 private:
  static std::size_t OnHeader(char* data, std::size_t size, std::size_t count, void* context);
  static std::size_t OnBody(char* data, std::size_t size, std::size_t count, void* context);
  static std::size_t OnSend(char* buffer, std::size_t size, std::size_t count, void* context);
  static int OnRewind(void* context, curl_off_t offset, int origin);
  static int OnBegin(void* context, char* to, char* from, int to_port, int from_port);
  void SetOptions(const HttpOptions& options);
  void SetMethod();
  void SetHeaders();

  CURL* const handle_;
  const HttpRequest& request_;
  HttpReply reply_;
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers_;
  std::size_t sent_ = 0;
  const bool resends_;
  int num_begun_ = 0;  // times that the request was about to be sent
  bool is_too_large_ = false;
};

/// Sets libcurl up, once for the process.
void StartCurl();

}  // namespace millstream
