// SPDX-License-Identifier: Apache-2.0
#include "openai/rate_limit.h"

#include <charconv>
#include <cmath>
#include <string>

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::int64_t kBytesPerToken = 4;  // about
constexpr std::int64_t kUnitsMax = std::int64_t{1} << 40;
constexpr double kSecondsMax = 24 * 3600;
constexpr seconds kMinute{60};
// A limit a minute is kept over this time, so that no minute that a server counts holds more,
// though what is sent reaches it sooner or later by a second.
constexpr double kMinuteSeconds = 61.2;
constexpr double kUnusedSecondsMax = 5;
// A request that was sent so long before another has reached the server before it.
constexpr seconds kStretch{1};
constexpr double kForgets = 1.0 / 8;  // of the average of answers, with each

SendTime::duration Duration(double its_seconds) {
  return std::chrono::duration_cast<SendTime::duration>(std::chrono::duration<double>(its_seconds));
}

std::int64_t NumberAfter(std::string_view body, std::string_view key) {
  std::size_t at = body.find(key);
  if (at == body.npos) return 0;
  at = body.find_first_not_of(" \t\r\n", at + key.size());
  if (at == body.npos) return 0;
  std::int64_t number = 0;
  std::from_chars(body.data() + at, body.data() + body.size(), number);
  return std::clamp<std::int64_t>(number, 0, kUnitsMax);
}

std::optional<std::int64_t> Units(const std::string& value) {
  std::int64_t units = 0;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, units);
  if (value.empty() || error != std::errc() || stop != end) return std::nullopt;
  return std::clamp<std::int64_t>(units, 0, kUnitsMax);
}

// How many seconds one of the unit that `text` begins with is, which is taken off; 0: it is none.
double TakeUnit(std::string_view& text) {
  struct Unit {
    std::string_view name;
    double seconds;
  };
  constexpr Unit kUnits[] = {// the longer name first
                             {"ms", 1e-3},
                             {"us", 1e-6},
                             {"ns", 1e-9},
                             {"d", 86400},
                             {"h", 3600},
                             {"m", 60},
                             {"s", 1}
  };
  for (const Unit& unit : kUnits) {
    if (!text.starts_with(unit.name)) continue;
    text.remove_prefix(unit.name.size());
    return unit.seconds;
  }
  return 0;
}

// "6m0s", "250ms", "2m59.56s", or plain seconds.
std::optional<milliseconds> ReadDuration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  double all = 0;
  while (!text.empty()) {
    double number = 0;
    const auto [stop, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc() || !(number >= 0) || std::isinf(number)) return std::nullopt;
    const bool is_plain = all == 0 && stop == text.data() + text.size();
    text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
    const double unit = is_plain ? 1 : TakeUnit(text);
    if (unit == 0) return std::nullopt;
    all += number * unit;
  }
  return milliseconds(static_cast<std::int64_t>(std::ceil(std::min(all, kSecondsMax) * 1000)));
}

RateHeader ReadOne(const HttpReply& reply, const std::string& kind) {
  return {
      Units(reply.Header("x-ratelimit-limit-" + kind)),
      Units(reply.Header("x-ratelimit-remaining-" + kind)),
      ReadDuration(reply.Header("x-ratelimit-reset-" + kind))
  };
}

}  // namespace

std::int64_t EstimateTokens(std::string_view body) {
  // A quote within a text is escaped, so that these are keys.
  const std::int64_t most =
      std::max(NumberAfter(body, "max_tokens\":"), NumberAfter(body, "max_completion_tokens\":"));
  return static_cast<std::int64_t>(body.size()) / kBytesPerToken + most;
}

RateLimit::RateLimit(std::int64_t per_minute) : per_minute_(per_minute) {}

void RateLimit::Take(SendTime now, std::int64_t units) {
  if (per_minute_ <= 0) return;
  const double minutes =
      std::clamp(static_cast<double>(units) / static_cast<double>(per_minute_), -1.0, 1.0);
  free_at_ = std::max(free_at_, now) + Duration(kMinuteSeconds * minutes) - unused_;
  unused_ = std::clamp(now - free_at_, SendTime::duration(0), Duration(kUnusedSecondsMax));
  // What was sent a minute ago counts no more, however much it was.
  free_at_ = std::clamp(free_at_, now, now + Duration(kMinuteSeconds));
}

std::int64_t SendRate::Sent(SendTime now, std::int64_t estimate) {
  const std::int64_t counted = estimate + static_cast<std::int64_t>(beyond_);
  requests_.Take(now, 1);
  tokens_.Take(now, counted);
  return counted;
}

void SendRate::Answered(
    SendTime now, std::int64_t estimate, std::int64_t counted, std::int64_t used
) {
  if (used <= 0) return;  // it does not say
  tokens_.Take(now, used - counted);
  const auto beyond = static_cast<double>(std::max<std::int64_t>(used - estimate, 0));
  beyond_ += (beyond - beyond_) * kForgets;
}

RateHeaders ReadRateHeaders(const HttpReply& reply) {
  return {ReadOne(reply, "requests"), ReadOne(reply, "tokens")};
}

SendTime Allowance::NextTime(std::int64_t units) const {
  if (state_ == State::kUnknown) return {};
  if (remaining_ - under_way_ >= (limit_ > 0 ? std::min(units, limit_) : units)) return {};
  return std::min(reset_at_, last_sent_ + kMinute);
}

void Allowance::Sent(SendTime now, std::int64_t units) {
  if (state_ != State::kUnknown && now >= reset_at_) {
    // For one more minute it is held to what it said, as answers take a while.
    const bool is_known = limit_ > 0 && state_ == State::kSaid;
    state_ = is_known ? State::kAssumed : State::kUnknown;
    remaining_ = limit_;
    reset_at_ = now + kMinute;
    while (!stretches_.empty()) DropFirst();
    learned_from_ = now;
  }
  while (!stretches_.empty() && stretches_.front().under_way == 0) DropFirst();
  if (stretches_.empty() || now >= stretches_.back().begin + kStretch) stretches_.push_back({now});
  stretches_.back().under_way += units;
  under_way_ += units;
  last_sent_ = now;
}

void Allowance::Learn(SendTime now, SendTime sent_at, const RateHeader& header) {
  const auto stretch = Find(sent_at);
  if (stretch == stretches_.end() || stretch->begin < learned_from_) return;  // overtaken
  const bool was_said = state_ == State::kSaid;
  const bool is_newer = !was_said || stretch->begin > learned_from_;
  learned_from_ = stretch->begin;
  const bool is_said = header.remaining && header.reset;
  state_ = is_said ? State::kSaid : State::kUnknown;
  if (!is_said) return;
  limit_ = header.limit.value_or(0);
  // It was counted from some time between the sending and now: what is known is kept if it may be
  // the same.
  const bool is_later = was_said && sent_at + *header.reset > reset_at_;
  const SendTime reset_at = now + *header.reset;
  reset_at_ = was_said && !(is_newer && is_later) ? std::min(reset_at_, reset_at) : reset_at;
  // Of those that may have been taken in any order, the least is the last.
  remaining_ = is_newer ? *header.remaining : std::min(remaining_, *header.remaining);
  while (stretches_.front().begin + 2 * kStretch <= sent_at) DropFirst();
}

void Allowance::Ended(SendTime sent_at, std::int64_t units) {
  const auto stretch = Find(sent_at);
  if (stretch == stretches_.end()) return;
  stretch->under_way -= units;
  under_way_ -= units;
}

// The stretch in which it was sent, if what is under way of it counts.
std::deque<Allowance::Stretch>::iterator Allowance::Find(SendTime sent_at) {
  for (auto stretch = stretches_.end(); stretch != stretches_.begin();) {
    if ((--stretch)->begin <= sent_at) return stretch;
  }
  return stretches_.end();
}

void Allowance::DropFirst() {
  under_way_ -= stretches_.front().under_way;
  stretches_.pop_front();
}

}  // namespace millstream
