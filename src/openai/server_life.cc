// SPDX-License-Identifier: Apache-2.0
#include "openai/server_life.h"

#include <algorithm>

namespace millstream {

ServerLife::Action ServerLife::Next(Time now) {
  switch (state_) {
    case State::kDown:
      if (is_given_up() || now < next_) return Action::kNone;
      state_ = State::kStarting;
      since_ = next_ = now;
      is_checked_ = false;
      return Action::kStart;
    case State::kStarting:
      if (now - since_ >= options_.start_limit) break;
      if (is_checked_ || now < next_) return Action::kNone;
      is_checked_ = true;
      return Action::kCheck;
    case State::kReady:
      if (!asked_at_ || now - *asked_at_ < options_.silence) return Action::kNone;
      if (probed_at_ && now - *probed_at_ >= options_.probe_limit) break;
      if (probed_at_) return Action::kNone;
      probed_at_ = now;
      return Action::kProbe;
    case State::kKilled:
      return Action::kNone;
  }
  state_ = State::kKilled;
  return Action::kKill;
}

std::optional<ServerLife::Time> ServerLife::NextTime() const {
  switch (state_) {
    case State::kDown:
      return is_given_up() ? std::nullopt : std::optional<Time>(next_);
    case State::kStarting:
      return is_checked_ ? since_ + options_.start_limit : next_;
    case State::kReady:
      if (probed_at_) return *probed_at_ + options_.probe_limit;
      return asked_at_ ? std::optional<Time>(*asked_at_ + options_.silence) : std::nullopt;
    case State::kKilled:
      break;
  }
  return std::nullopt;
}

void ServerLife::Checked(bool is_ready, Time now) {
  if (state_ != State::kStarting) return;  // of an earlier life
  is_checked_ = false;
  next_ = now + options_.check_interval;
  if (!is_ready) return;
  state_ = State::kReady;
  has_been_ready_ = true;
  asked_at_.reset();
  probed_at_.reset();
}

void ServerLife::Asked(Time now) {
  if (!asked_at_) asked_at_ = now;
}

void ServerLife::Replied() {
  deaths_ = 0;
  asked_at_.reset();
  probed_at_.reset();
}

void ServerLife::Died(Time now) {
  state_ = State::kDown;
  since_ = next_ = now;
  if (++deaths_ == 1) return;  // one that has worked is started again at once
  auto backoff = options_.backoff_first;
  for (int i = 2; i < deaths_; ++i) backoff = std::min(backoff * 2, options_.backoff_max);
  next_ += backoff;
}

}  // namespace millstream
