// SPDX-License-Identifier: Apache-2.0
#include "http/http_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "http/transfer.h"

namespace millstream {

namespace {

// libcurl looks through all connections of a multi handle at each request's begin and end.
constexpr int kRequestsPerMulti = 128;
// In place of a connection:
constexpr std::uint64_t kWaking = ~std::uint64_t{0}, kAlso = kWaking - 1;

}  // namespace

// One of libcurl's sets of requests and connections, and what it wants to be told of.
struct HttpLoop::Multi {
  Multi(std::size_t its_number, int its_epoll, long most_connections)
      : number(its_number), epoll(its_epoll), handle(curl_multi_init()) {
    MS_CHECK(handle != nullptr);
    // All connections that were needed at once may be needed again.
    curl_multi_setopt(handle, CURLMOPT_MAXCONNECTS, most_connections);
    curl_multi_setopt(handle, CURLMOPT_SOCKETFUNCTION, OnSocket);
    curl_multi_setopt(handle, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(handle, CURLMOPT_TIMERFUNCTION, OnTimer);
    curl_multi_setopt(handle, CURLMOPT_TIMERDATA, this);
  }
  ~Multi() { curl_multi_cleanup(handle); }
  Multi(const Multi&) = delete;
  Multi& operator=(const Multi&) = delete;

  static int OnSocket(CURL*, curl_socket_t socket, int what, void* context, void* known) {
    const auto& multi = *static_cast<Multi*>(context);
    if (what == CURL_POLL_REMOVE) {
      (void)epoll_ctl(multi.epoll, EPOLL_CTL_DEL, socket, nullptr);
      return 0;
    }
    epoll_event event{};
    event.data.u64 = multi.number << 32 | static_cast<std::uint32_t>(socket);
    if (what != CURL_POLL_OUT) event.events |= EPOLLIN;
    if (what != CURL_POLL_IN) event.events |= EPOLLOUT;
    const int change = known == nullptr ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    MS_CHECK(epoll_ctl(multi.epoll, change, socket, &event) == 0);
    (void)curl_multi_assign(multi.handle, socket, context);  // it is known now
    return 0;
  }
  static int OnTimer(CURLM*, long wait_ms, void* context) {
    auto& timer = static_cast<Multi*>(context)->timer;
    timer =
        wait_ms < 0 ? Clock::time_point::max() : Clock::now() + std::chrono::milliseconds(wait_ms);
    return 0;
  }
  void Work(curl_socket_t socket, int what) {
    int running = 0;
    MS_CHECK(curl_multi_socket_action(handle, socket, what, &running) == CURLM_OK);
  }

  const std::uint64_t number;
  const int epoll;
  CURLM* const handle;
  int requests = 0;
  Clock::time_point timer = Clock::time_point::max();  // when it is to be called anyway
};

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
  Multi* multi = nullptr;
};

HttpLoop::HttpLoop(HttpOptions options)
    : options_(std::move(options)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  StartCurl();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWaking;
  MS_CHECK(epoll_ >= 0 && epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0);
}

HttpLoop::~HttpLoop() {
  while (!under_way_.empty()) Cancel(under_way_.begin()->first);
  for (void* handle : idle_) curl_easy_cleanup(handle);
  multis_.clear();
  close(wake_);
  close(epoll_);
}

// The first, as its connections are the ones that were used last.
HttpLoop::Multi& HttpLoop::WithRoom() {
  for (const auto& multi : multis_) {
    if (multi->requests < kRequestsPerMulti) return *multi;
  }
  const long most = std::min(2L * kRequestsPerMulti, static_cast<long>(options_.connections_max));
  return *multis_.emplace_back(std::make_unique<Multi>(multis_.size(), epoll_, most));
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
  one->multi = &WithRoom();
  ++one->multi->requests;
  MS_CHECK(curl_multi_add_handle(one->multi->handle, handle) == CURLM_OK);
}

void HttpLoop::Release(UnderWay& one) {
  curl_multi_remove_handle(one.multi->handle, one.handle);
  --one.multi->requests;
  idle_.push_back(one.handle);
}

void HttpLoop::Cancel(std::int64_t id) {
  const auto found = under_way_.find(id);
  if (found == under_way_.end()) return;
  Release(*found->second);
  under_way_.erase(found);
}

void HttpLoop::TakeEnded(Multi& multi, std::vector<Ended>& ended) {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi.handle, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    void* its = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &its);
    auto& one = *static_cast<UnderWay*>(its);
    ended.push_back({one.id, one.transfer.Finish(message->data.result)});
    Release(one);
    under_way_.erase(ended.back().id);
  }
}

// Waits until there is something to do, and lets libcurl do it. Returns whether it was woken.
bool HttpLoop::Wait(Clock::time_point until) {
  for (const auto& multi : multis_) until = std::min(until, multi->timer);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  const int wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
  std::array<epoll_event, 256> events;
  const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_ms);
  bool is_woken = false;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == kWaking) {
      eventfd_t times = 0;
      (void)eventfd_read(wake_, &times);
      is_woken = true;
      continue;
    }
    if (event.data.u64 == kAlso) {
      is_woken = true;
      continue;
    }
    const bool is_lost = (event.events & (EPOLLERR | EPOLLHUP)) != 0;  // which libcurl finds
    int what = 0;
    if (is_lost || (event.events & EPOLLIN) != 0) what |= CURL_CSELECT_IN;
    if (is_lost || (event.events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
    multis_[event.data.u64 >> 32]->Work(static_cast<int>(event.data.u64 & 0xffffffff), what);
  }
  const auto now = Clock::now();
  for (const auto& multi : multis_) {
    if (multi->timer > now) continue;
    multi->timer = Clock::time_point::max();  // unless it is set again
    multi->Work(CURL_SOCKET_TIMEOUT, 0);
  }
  return is_woken;
}

std::vector<HttpLoop::Ended> HttpLoop::Run(std::chrono::milliseconds at_most, int also) {
  std::vector<Ended> ended;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kAlso;
  MS_CHECK(also < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, also, &event) == 0);
  const auto until = Clock::now() + at_most;
  bool is_over = false;
  while (ended.empty() && !is_over) {
    is_over = Wait(until) || Clock::now() >= until;
    for (const auto& multi : multis_) TakeEnded(*multi, ended);
  }
  if (also >= 0) (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, also, nullptr);
  return ended;
}

void HttpLoop::Wake() {
  (void)eventfd_write(wake_, 1);
}

}  // namespace millstream
