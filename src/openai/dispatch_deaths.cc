// SPDX-License-Identifier: Apache-2.0
// Servers that die, and rows that kill them. A server has died if connections to it broke and then
// its port refuses, or if its launcher says so. What it died with is sent to it by itself once it
// has answered a probe: so whatever is blamed died with it twice, with an answer in between.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "openai/dispatch.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using Kind = Verdict::Kind;

// A process that is just dying takes connections that it then breaks, and a quick supervisor has
// another in its place within tens of milliseconds.
constexpr milliseconds kLookWaitFirst{10}, kLookWaitMax{1'000};
constexpr int kHangsAloneMax = 2;
constexpr const char* kRefused = "its connections broke, and its port refused others";

}  // namespace

std::deque<std::int64_t>::const_iterator Dispatch::Server::NextSuspect() const {
  if (!takes_suspects()) return ready.end();
  return std::find_if(ready.begin(), ready.end(), [&](std::int64_t id) {
    return std::find(suspects.group().begin(), suspects.group().end(), id) !=
           suspects.group().end();
  });
}

std::optional<Dispatch::Sending> Dispatch::NextSuspect(Time now) {
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    Server& server = servers_[i];
    const auto next = server.NextSuspect();
    if (next == server.ready.end() || !server.takes_one_more()) continue;
    const std::int64_t id = *next;
    if (now < NextTimeOf(server, tasks_.at(id).work)) continue;
    server.ready.erase(next);
    return SendTo(i, id, /*is_retry=*/false, now);
  }
  return std::nullopt;
}

// To be sent as soon as may be.
void Dispatch::Queue(std::int64_t id, std::deque<std::int64_t>& unless_suspect) {
  const auto task = tasks_.find(id);
  if (task == tasks_.end()) return;
  const auto suspect_at = task->second.suspect_at;
  (suspect_at ? servers_[*suspect_at].ready : unless_suspect).push_back(id);
}

void Dispatch::ClearSuspect(std::int64_t id, const Task& task) {
  if (!task.suspect_at) return;
  Server& server = servers_[*task.suspect_at];
  server.suspects.Clear(id);
  std::erase(server.ready, id);
}

// What failed may have failed of the server's death; a reply to what was sent later shows that the
// server is there.
void Dispatch::NoteLoss(
    const Sending& sent, std::int64_t number, const Verdict& verdict, Time now
) {
  Server& server = servers_[sent.server];
  if (server.has_died) return;
  switch (verdict.kind) {
    case Kind::kLost:
    case Kind::kAgain:
    case Kind::kUnavailable:
      if (server.lost.empty()) server.first_after_loss = num_sent_ + 1;
      server.lost.insert(sent.id);
      if (verdict.kind != Kind::kLost || server.wants_look || options_.is_launched) return;
      server.wants_look = true;
      server.look_at = now;
      server.look_wait = kLookWaitFirst;
      return;
    case Kind::kGone:
      if (verdict.is_refused && !options_.is_launched && !server.lost.empty()) {
        Die(sent.server, kRefused, /*hung=*/false, now);
      }
      return;
    case Kind::kTimeout:
      if (!options_.is_launched) return;
      if (server.lost.empty()) server.first_after_loss = num_sent_ + 1;
      server.lost.insert(sent.id);  // if it hangs, then maybe because of this
      return;
    case Kind::kStop:
      return;
    case Kind::kAnswer:
    case Kind::kFailed:
    case Kind::kBusy:
    case Kind::kRefused:
      if (number < server.first_after_loss) return;
      server.lost.clear();
      server.wants_look = false;
  }
}

std::optional<std::size_t> Dispatch::NextLook(Time now) {
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    Server& server = servers_[i];
    if (!server.wants_look || server.is_looked_at || now < server.look_at) continue;
    server.is_looked_at = true;
    return i;
  }
  return std::nullopt;
}

void Dispatch::Looked(std::size_t number, const Verdict& verdict, Time now) {
  Server& server = servers_[number];
  server.is_looked_at = false;
  if (!server.wants_look) return;  // a row found out
  switch (verdict.kind) {
    case Kind::kLost:
    case Kind::kTimeout:
      server.look_at = now + server.look_wait;
      server.look_wait = std::min(2 * server.look_wait, kLookWaitMax);
      return;
    case Kind::kGone:
      server.wants_look = false;
      TakeReply(server, verdict, now);
      if (verdict.is_refused) Die(number, kRefused, /*hung=*/false, now);
      return;
    default:
      server.wants_look = false;
      server.lost.clear();
      if (!server.has_died) Acquit(number);
      return;
  }
}

void Dispatch::ServerDied(std::size_t number, const std::string& how, bool hung, Time now) {
  Server& server = servers_[number];
  Die(number, how, hung, now);
  failing_since_.reset();  // its launcher says when to give up
  server.is_gone = false;  // it is there again
  server.not_before = server.probe_at = now;
}

void Dispatch::Die(std::size_t number, const std::string& how, bool hung, Time now) {
  Server& server = servers_[number];
  std::vector<std::int64_t> in_flight;
  for (auto& [id, task] : tasks_) {
    const bool is_of_another = task.suspect_at && *task.suspect_at != number;
    const bool was_lost = server.lost.contains(id) && !task.server && !is_of_another;
    if (task.server != number && !was_lost) continue;
    in_flight.push_back(id);
    if (task.server && !task.suspect_at) ++server.suspects_under_way;
    task.suspect_at = number;
    task.failing_since.reset();  // it was the server's
  }
  std::sort(in_flight.begin(), in_flight.end());
  server.lost.clear();
  server.wants_look = false;
  server.has_died = true;
  server.has_answered = false;
  server.probe_at = server.not_before;
  const bool are_all = AllAreDoubtful();
  had_outage_ = had_outage_ || are_all;
  failing_since_ = are_all ? std::optional<Time>(now) : std::nullopt;
  if (const auto to_blame = server.suspects.Die(in_flight)) Condemn(*to_blame, number, how, hung);
  const auto moves = [&](std::int64_t id) {
    const auto task = tasks_.find(id);
    if (task == tasks_.end() || !task->second.suspect_at) return false;
    Queue(id, ready_);
    return true;
  };
  std::erase_if(ready_, moves);
  std::erase_if(again_, moves);
  std::erase_if(later_, [&](const auto& entry) { return moves(entry.second); });
}

// A row that was alone at a server's death, and there at one before. A hang may be the server's own
// more often than a death: it is tried a third time.
void Dispatch::Condemn(std::int64_t id, std::size_t number, const std::string& how, bool hung) {
  Task& task = tasks_.at(id);
  if (hung && ++task.hangs < kHangsAloneMax) {
    servers_[number].suspects.Die({id});
    return;
  }
  Completion failed;
  failed.id = id;
  failed.reason = FinishReason::kError;
  failed.error_code = hung ? "timeout" : "crash";
  failed.error_message =
      hung ? "the server hung with this row three times, the last two with it alone: " + how
           : "the server died with this row twice, the second time with it alone: " + how;
  failed.killed_engine = !hung;
  Fail(id, std::move(failed));
}

// A server has answered something that was sent after what failed there: it has outlived it, and
// what failed is to hold up no other row.
void Dispatch::Acquit(std::size_t number) {
  Server& server = servers_[number];
  for (const std::int64_t id : server.suspects.ids()) {
    Task& task = tasks_.at(id);
    const bool is_ready =
        std::find(server.ready.begin(), server.ready.end(), id) != server.ready.end();
    if (task.server || is_ready) continue;
    ClearSuspect(id, task);
    task.suspect_at.reset();
  }
}

void Dispatch::MoveSuspectsOfGoneServers(Time now) {
  for (std::size_t from = 0; from < servers_.size(); ++from) {
    const Server& server = servers_[from];
    if (!server.suspects.active() || !server.gone_since || server.suspects_under_way > 0) continue;
    if (now - *server.gone_since < kSuspectsWait) continue;
    for (std::size_t to = 0; to < servers_.size(); ++to) {
      if (servers_[to].is_doubtful() || !servers_[to].takes_any()) continue;
      MoveSuspects(from, to);
      break;
    }
  }
}

void Dispatch::MoveSuspects(std::size_t from, std::size_t to) {
  for (const std::int64_t id : servers_[from].suspects.ids()) tasks_.at(id).suspect_at = to;
  servers_[to].suspects = std::exchange(servers_[from].suspects, {});
  servers_[to].ready = std::exchange(servers_[from].ready, {});
}

}  // namespace millstream
