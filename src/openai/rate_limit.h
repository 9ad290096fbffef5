// SPDX-License-Identifier: Apache-2.0
// How much may be sent in a time: what the job file says, what a server's headers say, and how much
// of it may be sent again. No clock: time is an argument.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>

#include "http/http.h"

namespace millstream {

using SendTime = std::chrono::steady_clock::time_point;

/// How many tokens a request's body asks for, about: those of its text, and those that its answer
/// may have if it says so.
std::int64_t EstimateTokens(std::string_view body);

/// At most so many units a minute, evenly: in any minute of a server's clock, though requests
/// take a while to reach it, and up to rounding in any second, as some servers count.
class RateLimit {
 public:
  explicit RateLimit(std::int64_t per_minute);  // 0: no limit
  /// When more may be sent. What is sent then may be of any size: what follows waits for it.
  SendTime NextTime() const { return free_at_ - kBurst; }
  /// So much was sent; or, if less than 0, was not used after all.
  void Take(SendTime now, std::int64_t units);

 private:
  // Several due ones are sent at once, as none is sent at the very instant that it is due.
  static constexpr std::chrono::milliseconds kBurst{20};
  const std::int64_t per_minute_;
  SendTime free_at_{};
  SendTime::duration unused_{0};  // at free_at_: of what was sent and not used
};

/// The two limits of a model, over all of its servers. Tokens are counted as estimated when a
/// request is sent, and as they were when it is answered.
class SendRate {
 public:
  SendRate(std::int64_t requests_per_minute, std::int64_t tokens_per_minute)
      : requests_(requests_per_minute), tokens_(tokens_per_minute) {}
  SendTime NextTime() const { return std::max(requests_.NextTime(), tokens_.NextTime()); }
  /// Returns the tokens that the request counts for.
  std::int64_t Sent(SendTime now, std::int64_t estimate);
  void Answered(SendTime now, std::int64_t estimate, std::int64_t counted, std::int64_t used);

 private:
  RateLimit requests_, tokens_;
  // Tokens beyond the estimate, of late: of answers whose length nobody has limited.
  double beyond_ = 512;
};

/// What a server's headers say of one of its two limits.
struct RateHeader {
  std::optional<std::int64_t> limit, remaining;
  std::optional<std::chrono::milliseconds> reset;  // from when they were written
};
struct RateHeaders {
  RateHeader requests, tokens;
};

/// x-ratelimit-{limit,remaining,reset}-{requests,tokens}. What cannot be read is as if it were not
/// there.
RateHeaders ReadRateHeaders(const HttpReply& reply);

/// How many more units a server takes until its limit is reset, as its headers say. They are old
/// when they come, and a server takes requests in another order than that they were sent in: what
/// is under way counts as not in them, unless it was sent a second or more before.
class Allowance {
 public:
  /// When `units` may be sent. Never later than a minute after the last that was sent: one request
  /// then looks whether there is more, whatever was said before.
  SendTime NextTime(std::int64_t units) const;
  void Sent(SendTime now, std::int64_t units);
  /// The headers of a reply to a request that was sent then and has not Ended().
  void Learn(SendTime now, SendTime sent_at, const RateHeader& header);
  /// So much of what was sent then is no longer under way.
  void Ended(SendTime sent_at, std::int64_t units);

 private:
  // What was sent in about a second, and is under way.
  struct Stretch {
    SendTime begin;
    std::int64_t under_way = 0;
  };
  std::deque<Stretch>::iterator Find(SendTime sent_at);
  void DropFirst();

  enum class State { kUnknown, kSaid, kAssumed };  // assumed: a limit that has been reset since
  State state_ = State::kUnknown;
  std::int64_t limit_ = 0;  // 0: not said
  std::int64_t remaining_ = 0;
  std::int64_t under_way_ = 0;  // of which it is not known whether they are in remaining_
  std::deque<Stretch> stretches_;
  SendTime learned_from_{};  // the begin of a stretch
  SendTime reset_at_{}, last_sent_{};
};

/// When much of what is sent was sent before, the rest of it is sent a few at a time. Each answer
/// pays for a part of a retry, as in Finagle's RetryBudget and the retry quota of the AWS SDKs;
/// but where those give up, here a retry waits.
class RetryQuota {
 public:
  /// Whether one more may be sent, with so many under way in a window of that size.
  bool Allows(std::int64_t retries_under_way, std::int64_t window) const {
    return left_ >= 1 || retries_under_way < std::max<std::int64_t>(window / kShare, 1);
  }
  void Retried() { left_ = std::max(left_ - 1, 0.0); }
  void Answered() { left_ = std::min(left_ + kPerAnswer, kMost); }

 private:
  static constexpr double kPerAnswer = 0.25;  // a fifth of what is sent
  static constexpr double kMost = 100;        // that may be sent at once
  static constexpr std::int64_t kShare = 8;   // of the window, once the quota is used up
  double left_ = kMost;
};

}  // namespace millstream
