// SPDX-License-Identifier: Apache-2.0
#include "openai/dispatch.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "fmt/format.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using Kind = Verdict::Kind;

constexpr milliseconds kBackoffMax{30'000};
constexpr milliseconds kProbeInterval{10'000};
constexpr milliseconds kSpreadMax{5'000};
constexpr milliseconds kWaitedStretchMax{10'000};
constexpr int kTimeoutsMax = 3;

Completion FailedFor(std::int64_t id, std::string_view code, std::string message) {
  Completion completion;
  completion.id = id;
  completion.reason = FinishReason::kError;
  completion.error_code = code;
  completion.error_message = std::move(message);
  return completion;
}

Completion TimedOut(std::int64_t id) {
  return FailedFor(
      id,
      "timeout",
      fmt::format("no answer within `timeout`, {} times, while others were answered", kTimeoutsMax)
  );
}

}  // namespace

Dispatch::Dispatch(const DispatchOptions& options, std::uint64_t seed)
    : options_(options),
      window_(options.max_in_flight, options.most_in_flight),
      rate_(options.requests_per_minute, options.tokens_per_minute),
      random_(seed),
      servers_(options.num_servers) {
  MS_CHECK(!servers_.empty());
}

void Dispatch::Add(std::int64_t id, std::int64_t work) {
  Task task;
  task.work = std::max<std::int64_t>(work, 1);
  MS_CHECK(tasks_.emplace(id, std::move(task)).second);
  ready_.push_back(id);
}

void Dispatch::Cancel(std::int64_t id) {
  const auto found = tasks_.find(id);
  if (found == tasks_.end()) return;
  if (found->second.server) Release(found->second);
  ClearSuspect(id, found->second);
  tasks_.erase(found);  // Next() passes over what it no longer finds
}

// Those that were sent before go first, as far as the quota allows.
const std::deque<std::int64_t>* Dispatch::ToSend() const {
  if (!again_.empty() && quota_.Allows(retries_under_way_, window_.size())) return &again_;
  return ready_.empty() ? nullptr : &ready_;
}

Dispatch::Time Dispatch::NextTimeOf(const Server& server, std::int64_t work) {
  return std::max(
      {server.not_before, server.requests_left.NextTime(1), server.tokens_left.NextTime(work)}
  );
}

// The one with the least work under way, of those that may be asked.
std::optional<std::size_t> Dispatch::ChooseServer(Time now, std::int64_t work) const {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    const Server& server = servers_[i];
    if (!server.takes_any() || !server.takes_one_more()) continue;
    if (now < NextTimeOf(server, work)) continue;
    if (!best || server.work < servers_[*best].work) best = i;
  }
  return best;
}

// Whether a row that timed out by itself has done so too often: no other did since, and others were
// answered.
bool Dispatch::ConfirmTimeout(Task& task) const {
  if (!std::exchange(task.timed_out_alone, false)) return false;
  const bool is_alone = num_timeouts_ == task.timeouts_when_sent + 1;
  if (is_alone && num_answers_ > task.answers_when_sent) ++task.timeouts;
  return task.timeouts >= kTimeoutsMax;
}

void Dispatch::QueueWhatIsDue(Time now) {
  while (!later_.empty() && later_.begin()->first <= now) {
    const std::int64_t id = later_.begin()->second;
    later_.erase(later_.begin());
    const auto task = tasks_.find(id);
    if (task == tasks_.end()) continue;
    if (ConfirmTimeout(task->second)) {
      Fail(id, TimedOut(id));
    } else {
      Queue(id, again_);
    }
  }
}

void Dispatch::Fail(std::int64_t id, Completion completion) {
  failed_.push_back(std::move(completion));
  Cancel(id);
}

std::vector<Completion> Dispatch::TakeFailed() {
  return std::exchange(failed_, {});
}

std::optional<Dispatch::Sending> Dispatch::Next(Time now) {
  QueueWhatIsDue(now);
  MoveSuspectsOfGoneServers(now);
  for (auto* queue : {&again_, &ready_}) {
    while (!queue->empty() && !tasks_.contains(queue->front())) queue->pop_front();
  }
  const bool is_stopped = !why_stopped_.empty();
  if (is_stopped || under_way_ >= window_.size() || now < rate_.NextTime()) return std::nullopt;
  if (const auto suspect = NextSuspect(now)) return suspect;
  const std::deque<std::int64_t>* const to_send = ToSend();
  if (to_send == nullptr) return std::nullopt;
  const std::int64_t id = to_send->front();
  const std::optional<std::size_t> server = ChooseServer(now, tasks_.at(id).work);
  if (!server) return std::nullopt;
  const bool is_retry = to_send == &again_;
  (is_retry ? again_ : ready_).pop_front();
  return SendTo(*server, id, is_retry, now);
}

Dispatch::Sending Dispatch::SendTo(std::size_t number, std::int64_t id, bool is_retry, Time now) {
  Task& task = tasks_.at(id);
  Server& server = servers_[number];
  task.is_retry = is_retry;
  task.server = number;
  task.number = ++num_sent_;
  task.answers_when_sent = num_answers_;
  task.timeouts_when_sent = num_timeouts_;
  server.work += task.work;
  ++server.requests;
  if (task.suspect_at) ++server.suspects_under_way;
  under_way_when_sent_ = ++under_way_;
  Charge(task, server, now);
  return {id, number};
}

// Takes a request off the server that it was sent to.
void Dispatch::Release(Task& task) {
  MS_CHECK(task.server.has_value());
  Server& server = servers_[*task.server];
  task.server.reset();
  server.work -= task.work;
  --server.requests;
  if (task.suspect_at) --server.suspects_under_way;
  --under_way_;
  if (task.is_retry) --retries_under_way_;
  server.requests_left.Ended(task.sent_at, 1);
  server.tokens_left.Ended(task.sent_at, task.work);
}

// Counts what is sent against all that limits it.
void Dispatch::Charge(Task& task, Server& server, Time now) {
  task.counted = rate_.Sent(now, task.work);
  task.sent_at = now;
  server.requests_left.Sent(now, 1);
  server.tokens_left.Sent(now, task.work);
  if (task.is_retry) {
    ++retries_under_way_;
    quota_.Retried();
  }
  if (now >= server.spread_until) return;
  // Not all that waited for this time at once: what the window holds, evenly but for chance.
  const auto spread = std::chrono::duration_cast<Time::duration>(server.spread);
  std::uniform_int_distribution<std::int64_t> draw(0, 2 * spread.count() / window_.size());
  server.not_before = std::max(server.not_before, now + Time::duration(draw(random_)));
}

// What a reply tells of the limits.
void Dispatch::TakeRates(const Task& task, Server& server, const Verdict& verdict, Time now) {
  const bool is_answer = verdict.kind == Kind::kAnswer;
  const auto learn = [&](Allowance& allowance, const RateHeader& header) {
    // A proxy's error may lack them.
    if (is_answer || header.remaining) allowance.Learn(now, task.sent_at, header);
  };
  learn(server.requests_left, verdict.rates.requests);
  learn(server.tokens_left, verdict.rates.tokens);
  if (!is_answer) return;
  const Completion& completion = verdict.completion;
  const std::int64_t used = completion.prompt_tokens + completion.completion_tokens;
  rate_.Answered(now, task.work, task.counted, used);
  window_.Answered(now, used > 0 ? used : task.work, under_way_when_sent_);
}

std::optional<std::size_t> Dispatch::NextProbe(Time now) {
  for (std::size_t i = 0; i < servers_.size() && why_stopped_.empty(); ++i) {
    Server& server = servers_[i];
    const bool waits = server.is_probed || now < server.probe_at;
    if (tasks_.empty() || waits || !server.wants_probe()) continue;
    server.is_probed = true;
    (void)rate_.Sent(now, 1);
    return i;
  }
  return std::nullopt;
}

void Dispatch::Probed(std::size_t number, const Verdict& verdict, Time now) {
  Server& server = servers_[number];
  server.is_probed = false;
  if (server.has_died) server.backoff = NextBackoff(server.backoff);
  server.probe_at = now + std::max(
                              server.has_died ? server.backoff : kProbeInterval,
                              verdict.retry_after.value_or(milliseconds(0))
                          );
  const bool is_refused = verdict.kind == Kind::kRefused;
  if (is_refused && ++server.refused_probes < options_.num_probes) {
    server.probe_at = now;  // it may not have this endpoint
    return;
  }
  server.refused_probes = 0;
  const bool answers = verdict.kind == Kind::kAnswer || verdict.kind == Kind::kFailed;
  if (answers && !server.has_died) Acquit(number);
  // No row may find out.
  const bool says_why =
      (server.has_died || !server.refused.empty()) && (is_refused || verdict.kind == Kind::kStop);
  if (answers || says_why) {
    TakeReply(server, verdict, now);
  } else {
    had_outage_ = true;
    last_failure_ = verdict.message;
    if (verdict.kind != Kind::kBusy) SetFailing(now);
  }
  EndRefused(server, answers, verdict, now);
}

bool Dispatch::is_asking() const {
  return under_way_ > 0 || std::any_of(servers_.begin(), servers_.end(), [](const Server& server) {
           return server.is_probed;
         });
}

// Of what a server refused it is known that it is to blame, or else nothing: it is tried again.
void Dispatch::EndRefused(Server& server, bool are_to_blame, const Verdict& verdict, Time now) {
  if (are_to_blame) {
    server.has_answered = true;
    server.refusals = 0;
  }
  for (Completion& refused : std::exchange(server.refused, {})) {
    const auto found = tasks_.find(refused.id);
    if (found == tasks_.end()) continue;  // cancelled
    if (are_to_blame) {
      ClearSuspect(refused.id, found->second);
      tasks_.erase(found);
      failed_.push_back(std::move(refused));
    } else {
      Task& task = found->second;
      task.backoff = NextBackoff(task.backoff);
      const milliseconds wait =
          std::max(task.backoff, verdict.retry_after.value_or(milliseconds(0)));
      later_.emplace(now + wait, refused.id);
    }
  }
}

std::optional<Dispatch::Time> Dispatch::NextTime() const {
  std::optional<Time> next;
  const auto take = [&](Time time) {
    if (!next || time < *next) next = time;
  };
  if (!later_.empty()) take(later_.begin()->first);
  if (const auto* to_send = ToSend(); to_send != nullptr && under_way_ < window_.size()) {
    const auto task = tasks_.find(to_send->front());
    const std::int64_t work = task == tasks_.end() ? 0 : task->second.work;
    for (const Server& server : servers_) {
      if (!server.takes_any() || !server.takes_one_more()) continue;
      take(std::max(rate_.NextTime(), NextTimeOf(server, work)));
    }
  }
  for (const Server& server : servers_) {
    const auto suspect = server.NextSuspect();
    if (suspect != server.ready.end() && under_way_ < window_.size() && server.takes_one_more()) {
      take(std::max(rate_.NextTime(), NextTimeOf(server, tasks_.at(*suspect).work)));
    }
    if (server.wants_probe() && !server.is_probed && !tasks_.empty()) take(server.probe_at);
    if (server.wants_look && !server.is_looked_at) take(server.look_at);
  }
  return next;
}

bool Dispatch::AllAreDoubtful() const {
  return std::all_of(servers_.begin(), servers_.end(), [](const Server& server) {
    return server.is_doubtful();
  });
}

// Decorrelated jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
milliseconds Dispatch::NextBackoff(milliseconds last) {
  const std::int64_t first = options_.backoff_first.count();
  const std::int64_t most = std::max(last.count() * 3, first * 2);
  std::uniform_int_distribution<std::int64_t> draw(first, most);
  return std::min(milliseconds(draw(random_)), kBackoffMax);
}

// The clock of answers goes on, but for what lay in between of outages. Of a stretch in which a row
// was refused that is refused again and again, a little counts: were it the server that wants to be
// left, there would be few answers.
void Dispatch::CountAnswer(Time now) {
  ++num_answers_;
  quota_.Answered();
  if (last_answer_ && !had_outage_) {
    const auto stretch = std::chrono::duration_cast<milliseconds>(now - *last_answer_);
    clock_ += had_wait_ ? std::min(stretch, kWaitedStretchMax) : stretch;
  }
  last_answer_ = now;
  had_outage_ = had_wait_ = false;
  failing_since_.reset();
}

// A server that wants to be left does not fail rows, but one that is refused whenever it is sent.
void Dispatch::NoteWait(const Verdict& verdict, Task& task) {
  if (verdict.kind != Kind::kBusy && !verdict.retry_after) return;
  (++task.waits > kWaitsMax ? had_wait_ : had_outage_) = true;
}

// What fails by itself is told from a server that fails by a probe: a row that is slow, and one
// that is suspected of having killed the server, which nothing else is sent to meanwhile.
void Dispatch::Doubt(Server& server, const Task& task, const Verdict& verdict, Time now) const {
  if (verdict.kind == Kind::kGone || verdict.kind == Kind::kStop) return;
  if (verdict.kind == Kind::kLost && !options_.is_launched) return;  // a look tells
  const bool is_slow = verdict.kind == Kind::kTimeout && server.requests == 0;
  if (!is_slow && !task.suspect_at) return;
  server.is_in_doubt = true;
  server.probe_at = verdict.retry_after ? server.not_before : now;
}

void Dispatch::SetFailing(Time now) {
  if (!failing_since_ && AllAreDoubtful()) failing_since_ = now;
}

void Dispatch::TakeReply(Server& server, const Verdict& verdict, Time now) {
  if (verdict.retry_after && now + *verdict.retry_after > server.not_before) {
    server.not_before = now + *verdict.retry_after;
    server.spread = std::min(*verdict.retry_after, kSpreadMax);
    server.spread_until = server.not_before + server.spread;
    server.probe_at = std::max(server.probe_at, server.not_before);
  }
  server.is_gone = verdict.kind == Kind::kGone;
  if (server.is_gone) server.has_answered = false;  // another may come in its place
  if (!server.is_gone) server.gone_since.reset();
  if (server.is_gone && !server.gone_since) server.gone_since = now;
  switch (verdict.kind) {
    case Kind::kAnswer:
    case Kind::kFailed:
      server.has_died = server.is_in_doubt = false;
      server.failures = server.waits = 0;
      server.backoff = milliseconds(0);
      return CountAnswer(now);
    case Kind::kBusy:
      window_.Busy();
      failing_since_.reset();  // it is there
      if (++server.waits == kWaitsMax) {
        server.probe_at = std::max(server.not_before, now + kProbeInterval);
      }
      return;
    case Kind::kRefused:
    case Kind::kStop:
      why_stopped_ = verdict.message;
      return;
    case Kind::kUnavailable:
    case Kind::kTimeout:
      window_.Busy();
      break;
    case Kind::kGone:
    case Kind::kAgain:
    case Kind::kLost:
      break;
  }
  ++server.failures;
  if (verdict.kind == Kind::kTimeout) ++num_timeouts_;
  // Once for all that failed at the same time.
  if (server.is_doubtful() && now >= server.not_before) {
    server.backoff = NextBackoff(server.backoff);
    server.not_before = now + server.backoff;
  }
  last_failure_ = verdict.message;
  if (server.failures == kFailuresMax) {
    server.probe_at = verdict.retry_after ? server.not_before : now;
  }
  // Of servers that only fail, a probe tells whether it is an outage.
  if (server.is_gone && AllAreDoubtful()) had_outage_ = true;
  SetFailing(now);
}

std::optional<Completion> Dispatch::Ended(std::int64_t id, Verdict verdict, Time now) {
  const auto found = tasks_.find(id);
  if (found == tasks_.end()) return std::nullopt;  // cancelled
  Task& task = found->second;
  MS_CHECK(task.server.has_value());
  const Sending sent{id, *task.server};
  const std::int64_t number = task.number;
  Server& server = servers_[sent.server];
  TakeRates(task, server, verdict, now);
  Release(task);
  NoteWait(verdict, task);
  if (verdict.kind == Kind::kRefused) {
    ++server.refusals;
    if (!server.is_trusted()) {
      if (server.refused.empty()) server.refused_probes = 0;
      if (!server.is_probed) server.probe_at = now;
      server.lost.erase(id);
      server.refused.push_back(std::move(verdict.completion));
      server.refused.back().id = id;
      failing_since_.reset();  // it is there
      NoteLoss(sent, number, verdict, now);
      return std::nullopt;
    }
    verdict.kind = Kind::kFailed;
  }
  TakeReply(server, verdict, now);
  if (verdict.kind == Kind::kAnswer) EndRefused(server, /*are_to_blame=*/true, verdict, now);
  std::optional<Completion> completion;
  if (verdict.kind == Kind::kAnswer || verdict.kind == Kind::kFailed) {
    completion = std::move(verdict.completion);
    completion->id = id;
  } else {
    Doubt(server, task, verdict, now);
    completion = TryAgain(id, task, verdict, now);
  }
  if (completion) {
    ClearSuspect(id, task);
    tasks_.erase(found);
  }
  NoteLoss(sent, number, verdict, now);
  return completion;
}

std::optional<Completion> Dispatch::TryAgain(
    std::int64_t id, Task& task, const Verdict& verdict, Time now
) {
  // One of many that time out is not to blame: the server has too much to do. Whether it was one of
  // many is known once it is sent again.
  task.timed_out_alone =
      verdict.kind == Kind::kTimeout && num_timeouts_ == task.timeouts_when_sent + 1;
  const bool others_were = num_answers_ > task.answers_when_sent;
  if (task.timed_out_alone && others_were && task.timeouts == kTimeoutsMax - 1) return TimedOut(id);
  if (verdict.kind != Kind::kGone && verdict.kind != Kind::kStop) {
    if (!task.failing_since) task.failing_since = clock_;
    if (clock_ - *task.failing_since >= options_.row_deadline) {
      return FailedFor(
          id, "fetch", "failed until `row_deadline`, while others were answered: " + verdict.message
      );
    }
  }
  if (verdict.kind == Kind::kGone) {
    Queue(id, ready_);  // the server's own wait is enough
    return std::nullopt;
  }
  task.backoff = NextBackoff(task.backoff);
  later_.emplace(now + std::max(task.backoff, verdict.retry_after.value_or(milliseconds(0))), id);
  return std::nullopt;
}

std::string Dispatch::WhyStopped(Time now) const {
  if (!why_stopped_.empty()) return why_stopped_;
  if (!failing_since_ || now - *failing_since_ < options_.gone_limit) return {};
  return fmt::format(
      "no server has answered for {} s: {}",
      std::chrono::duration_cast<std::chrono::seconds>(options_.gone_limit).count(),
      last_failure_
  );
}

std::int64_t Dispatch::room() const {
  // Those that wait to be asked again hold nobody up, and more than fit wait for those that end.
  const auto active = static_cast<std::int64_t>(ready_.size()) + under_way_;
  const std::int64_t most = window_.size() + window_.size() / 4 + 1;
  if (static_cast<std::int64_t>(tasks_.size()) > 4 * most) return 0;
  return std::max<std::int64_t>(most - active, 0);
}

}  // namespace millstream
