// SPDX-License-Identifier: Apache-2.0
// A server that the job runs: started, waited for, started again when it dies or hangs.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "http/http.h"
#include "openai/launched_server.h"
#include "openai/server_life.h"

namespace millstream {

struct LauncherOptions {
  LaunchOptions launch;
  std::string name;  // of the model, for messages
  ServerLifeOptions life;
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

/// For one thread, which sends what it wants to ask the server.
class Launcher {
 public:
  using Time = ServerLife::Time;

  explicit Launcher(LauncherOptions options);

  /// Does what is to be done now, and returns what is to be asked of the server.
  enum class Question { kNone, kIsReady, kProbe };
  Question Tend(Time now);
  std::optional<Time> NextTime() const;
  /// Readable when the server has died; -1 if there is none.
  int descriptor() const { return server_ ? server_->descriptor() : -1; }

  std::string ready_url() const;  // for kIsReady, a GET
  void TakeReady(const HttpReply& reply, Time now);
  void Asked(Time now) { life_.Asked(now); }
  void Replied() { life_.Replied(); }

  /// Whether requests may be sent, to base_url().
  bool is_ready() const { return life_.is_ready() && server_ && server_->death().empty(); }
  std::string base_url() const { return server_->root_url() + "/v1"; }

  /// A death that is still to be buried, which is for when no request is under way any more.
  struct Death {
    std::string how;
    bool hung = false;  // and was killed for it
  };
  std::optional<Death> death() const;
  void Bury(Time now);
  int num_restarts() const { return num_starts_ > 0 ? num_starts_ - 1 : 0; }

  bool has_been_ready() const { return life_.has_been_ready(); }
  /// Why it is not started again, with the end of its log; empty: it is.
  const std::string& why_given_up() const { return why_given_up_; }

 private:
  void Start(Time now);
  void SayWaiting(Time now);

  const LauncherOptions options_;
  ServerLife life_;
  std::unique_ptr<LaunchedServer> server_;
  int num_starts_ = 0;
  bool has_health_ = true;  // else its list of models tells
  std::string last_check_ = "nothing yet";
  Time say_at_{};
  std::chrono::seconds say_interval_{};
  std::string why_given_up_;
};

}  // namespace millstream
