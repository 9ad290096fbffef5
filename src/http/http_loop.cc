// SPDX-License-Identifier: Apache-2.0
#include "http/http_loop.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "http/transfer.h"

namespace millstream {

struct HttpLoop::UnderWay {
  UnderWay(std::int64_t its_id, CURL* its_handle, const HttpOptions& options, HttpRequest its)
      : id(its_id),
        handle(its_handle),
        request(std::move(its)),
        transfer(handle, options, request) {
    curl_easy_setopt(handle, CURLOPT_PRIVATE, this);
  }

  const std::int64_t id;
  CURL* const handle;
  const HttpRequest request;
  Transfer transfer;
};

HttpLoop::HttpLoop(HttpOptions options)
    : options_(std::move(options)), multi_((StartCurl(), curl_multi_init())) {
  MS_CHECK(multi_ != nullptr);
  // All connections that were needed at once may be needed again.
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 1L << 16);
}

HttpLoop::~HttpLoop() {
  for (auto& [id, one] : under_way_) {
    curl_multi_remove_handle(multi_, one->handle);
    curl_easy_cleanup(one->handle);
  }
  for (void* handle : idle_) curl_easy_cleanup(handle);
  curl_multi_cleanup(multi_);
}

void HttpLoop::Start(std::int64_t id, HttpRequest request) {
  CURL* handle = nullptr;
  if (idle_.empty()) {
    handle = curl_easy_init();
    MS_CHECK(handle != nullptr);
  } else {
    handle = idle_.back();
    idle_.pop_back();
  }
  auto& one = under_way_[id];
  MS_CHECK(one == nullptr);
  one = std::make_unique<UnderWay>(id, handle, options_, std::move(request));
  MS_CHECK(curl_multi_add_handle(multi_, handle) == CURLM_OK);
}

void HttpLoop::Release(void* handle) {
  curl_multi_remove_handle(multi_, handle);
  idle_.push_back(handle);
}

void HttpLoop::Cancel(std::int64_t id) {
  const auto found = under_way_.find(id);
  if (found == under_way_.end()) return;
  Release(found->second->handle);
  under_way_.erase(found);
}

std::vector<HttpLoop::Ended> HttpLoop::Run(std::chrono::milliseconds at_most) {
  std::vector<Ended> ended;
  const auto work = [&] {
    int running = 0;
    MS_CHECK(curl_multi_perform(multi_, &running) == CURLM_OK);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      void* its = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &its);
      auto& one = *static_cast<UnderWay*>(its);
      ended.push_back({one.id, one.transfer.Finish(message->data.result)});
      Release(one.handle);
      under_way_.erase(ended.back().id);
    }
  };
  work();
  if (!ended.empty()) return ended;
  const int wait_ms = static_cast<int>(std::clamp<std::int64_t>(at_most.count(), 0, 60'000));
  MS_CHECK(curl_multi_poll(multi_, nullptr, 0, wait_ms, nullptr) == CURLM_OK);
  work();
  return ended;
}

void HttpLoop::Wake() {
  (void)curl_multi_wakeup(multi_);
}

}  // namespace millstream
