// SPDX-License-Identifier: Apache-2.0
#include "openai/launcher.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace millstream {
namespace {

using std::chrono::seconds;

constexpr seconds kSayFirst{5}, kSayMax{60};
constexpr int kNotFound = 404;

}  // namespace

Launcher::Launcher(LauncherOptions options) : options_(std::move(options)), life_(options_.life) {}

Launcher::Question Launcher::Tend(Time now) {
  if (!why_given_up_.empty()) return Question::kNone;
  if (server_ && server_->HasDied()) return Question::kNone;  // until it is buried
  switch (life_.Next(now)) {
    case ServerLife::Action::kStart:
      Start(now);
      return Question::kNone;
    case ServerLife::Action::kCheck:
      SayWaiting(now);
      return Question::kIsReady;
    case ServerLife::Action::kProbe:
      return Question::kProbe;
    case ServerLife::Action::kKill:
      options_.say(fmt::format("{}: the server hangs: it is killed", options_.name));
      server_->Kill();
      return Question::kNone;
    case ServerLife::Action::kNone:
      return Question::kNone;
  }
  return Question::kNone;
}

std::optional<Launcher::Time> Launcher::NextTime() const {
  if (!why_given_up_.empty() || (server_ && !server_->death().empty())) return std::nullopt;
  return life_.NextTime();
}

void Launcher::Start(Time now) {
  ++num_starts_;
  options_.say(fmt::format(
      "{}: starting `{}`, which logs to {}",
      options_.name,
      fmt::join(options_.launch.command, " "),
      options_.launch.log
  ));
  say_interval_ = kSayFirst;
  say_at_ = now + say_interval_;
  last_check_ = "nothing yet";
  auto server = LaunchedServer::Start(options_.launch);
  if (server.ok()) {
    server_ = *std::move(server);
  } else {
    life_.Died(now);
    why_given_up_ = server.status().message();  // what this process lacks will not come back
  }
}

void Launcher::SayWaiting(Time now) {
  if (now < say_at_) return;
  options_.say(fmt::format(
      "{}: waiting for the server to be ready, for {} s so far ({} says {})",
      options_.name,
      std::chrono::duration_cast<seconds>(now - life_.since()).count(),
      ready_url(),
      last_check_
  ));
  say_interval_ = std::min(say_interval_ * 2, kSayMax);
  say_at_ = now + say_interval_;
}

std::string Launcher::ready_url() const {
  return server_->root_url() + (has_health_ ? "/health" : "/v1/models");
}

void Launcher::TakeReady(const HttpReply& reply, Time now) {
  const bool is_done = reply.end == HttpReply::End::kDone;
  if (is_done && reply.status == kNotFound) has_health_ = !has_health_;
  last_check_ = is_done ? fmt::format("{}", reply.status) : reply.error;
  life_.Checked(is_done && reply.status == 200, now);
  if (!life_.is_ready()) return;
  options_.say(fmt::format(
      "{}: the server is ready, after {:.1f} s",
      options_.name,
      std::chrono::duration<double>(now - life_.since()).count()
  ));
}

std::optional<Launcher::Death> Launcher::death() const {
  if (!server_ || server_->death().empty()) return std::nullopt;
  if (life_.is_killed()) return Death{"it hung, and was killed", true};
  return Death{server_->death(), false};
}

void Launcher::Bury(Time now) {
  const std::string how = death()->how;
  life_.Died(now);
  if (life_.is_given_up() || !life_.has_been_ready()) {
    const std::string tail = server_->LogTail();
    why_given_up_ = fmt::format(
        "{}: the server that `launch` starts {}: {}; {}",
        options_.name,
        life_.has_been_ready() ? "ends again and again, and answers nothing"
                               : "ended before it was ready",
        how,
        tail.empty() ? "it printed nothing"
                     : fmt::format("its log, {}, ends:\n{}", options_.launch.log, tail)
    );
  } else {
    const std::string tail = server_->LogTail();
    options_.say(fmt::format(
        "{}: the server died: {}; starting it again. The last line of its log: {}",
        options_.name,
        how,
        tail.substr(tail.rfind('\n') + 1)
    ));
  }
  server_.reset();
}

}  // namespace millstream
