// SPDX-License-Identifier: Apache-2.0
// Which request to send where and when, and what its row's fate is. No input, no output, no clock:
// time is an argument.

#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "openai/rate_limit.h"
#include "openai/reply.h"
#include "openai/suspects.h"
#include "openai/window.h"

namespace millstream {

struct DispatchOptions {
  std::size_t num_servers = 1;
  std::int64_t max_in_flight = 0;                               // 0: as many as get more done
  std::int64_t most_in_flight = 16384;                          // whatever that says
  std::int64_t requests_per_minute = 0, tokens_per_minute = 0;  // 0: no limit
  std::chrono::milliseconds row_deadline{std::chrono::minutes(30)};
  std::chrono::milliseconds gone_limit{std::chrono::minutes(15)};
  std::chrono::milliseconds backoff_first{500};  // before a request is sent again; then it grows
  int num_probes = 1;                            // as many kinds of probes there are
  bool is_launched = false;  // ServerDied() says when a server died; else it is found out
};

/// For one thread.
class Dispatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  Dispatch(const DispatchOptions& options, std::uint64_t seed);

  /// A request to be sent; `work` is its size in tokens, about.
  void Add(std::int64_t id, std::int64_t work);
  /// Forgets a request, sent or not.
  void Cancel(std::int64_t id);

  /// The next request to send now, and to which server; nothing if none is to be sent now.
  struct Sending {
    std::int64_t id = 0;
    std::size_t server = 0;
  };
  std::optional<Sending> Next(Time now);
  /// When Next() may give one though nothing has ended.
  std::optional<Time> NextTime() const;

  /// A server that fails each request is to be asked something that harms none: is it the server,
  /// or the rows that are left? The same of one that refuses a request (Verdict::Kind::kRefused)
  /// and has answered none, or none for long. Nothing if none is to be asked now.
  std::optional<std::size_t> NextProbe(Time now);
  /// How many probes in a row it has refused: the next is to be of another kind.
  int refused_probes(std::size_t server) const { return servers_[server].refused_probes; }
  void Probed(std::size_t server, const Verdict& verdict, Time now);
  /// A server that connections to broke is to be looked at, by a connection: has it died? Nothing
  /// if none is to be looked at now.
  std::optional<std::size_t> NextLook(Time now);
  /// kGone: there was no connection; kLost or kTimeout: there was no reply; else there was.
  void Looked(std::size_t server, const Verdict& verdict, Time now);
  /// A launched server has died, or was killed because it hung, with what failed since its last
  /// answer. It is there again. REQUIRES: nothing is under way there.
  void ServerDied(std::size_t server, const std::string& how, bool hung, Time now);

  /// What came of a request that was sent. Returns its completion if that is the row's; if not, it
  /// will be sent again.
  std::optional<Completion> Ended(std::int64_t id, Verdict verdict, Time now);
  /// Those that failed though nothing has ended just now, each once: they kill their server or hang
  /// it, or it refuses them alone.
  std::vector<Completion> TakeFailed();
  /// Why no request will be answered any more, in words: a server said so, or none answers for too
  /// long. Empty: nothing of the kind.
  std::string WhyStopped(Time now) const;

  /// Since when requests fail and none is answered, and of what the last did.
  std::optional<Time> failing_since() const { return failing_since_; }
  const std::string& last_failure() const { return last_failure_; }
  std::int64_t under_way() const { return under_way_; }
  /// Whether something was sent, a probe included, that has not ended.
  bool is_asking() const;
  /// How many more requests are worth adding.
  std::int64_t room() const;

 private:
  struct Task {
    std::int64_t work = 0;
    std::optional<std::size_t> server;  // under way there
    std::int64_t answers_when_sent = 0, timeouts_when_sent = 0;
    std::int64_t counted = 0;  // tokens, of the limit a minute
    Time sent_at{};
    bool is_retry = false;
    std::chrono::milliseconds backoff{0};                    // its last
    std::optional<std::chrono::milliseconds> failing_since;  // on the clock of answers
    int timeouts = 0;  // while others were answered and none timed out
    bool timed_out_alone = false;
    int waits = 0;            // for a server that wants to be left
    int hangs = 0;            // of a server that was killed for it, with this row alone
    std::int64_t number = 0;  // of its sending
    std::optional<std::size_t> suspect_at;  // a server that died with it
  };
  static constexpr int kFailuresMax = 3, kRefusalsMax = 32;
  // A row that is told to wait more often may be too large to be taken at all.
  static constexpr int kWaitsMax = 3;
  // For their server to come back: then another is put at risk.
  static constexpr std::chrono::minutes kSuspectsWait{2};
  struct Server {
    std::int64_t work = 0;  // under way
    std::int64_t requests = 0;
    Time not_before{};  // it wants to be left, or is not there
    // When it has been left for so long, requests come back to it one after the other until then.
    std::chrono::milliseconds spread{0};
    Time spread_until{};
    Allowance requests_left, tokens_left;
    int failures = 0;  // since its last answer
    int waits = 0;     // that it wanted, likewise
    bool is_gone = false;
    // One that is gone, or fails each time, gets one request at a time, which looks whether it is
    // back.
    bool is_doubtful() const { return is_gone || has_died || failures >= kFailuresMax; }
    std::chrono::milliseconds backoff{0};
    // Something failed that may be slow or wrong by itself: does the server answer others?
    bool is_in_doubt = false;
    bool is_probed = false;  // a probe is under way
    Time probe_at{};         // the next

    // While it answers, what it refuses is a request's own fault. But it may have come to refuse
    // all.
    bool has_answered = false;
    int refusals = 0;                 // since its last answer
    std::vector<Completion> refused;  // what a probe is to tell of; nothing else is sent meanwhile
    int refused_probes = 0;           // in a row
    bool is_trusted() const { return has_answered && refusals <= kRefusalsMax; }

    // What failed since it last showed that it is there: if it has died, then with these.
    std::set<std::int64_t> lost;
    std::int64_t first_after_loss = 0;  // the number of a sending
    bool wants_look = false, is_looked_at = false;
    Time look_at{};
    std::chrono::milliseconds look_wait{};  // until the next, if this one tells nothing
    bool has_died = false;  // and answered nothing since: it is probed before any row is risked
    std::optional<Time> gone_since;
    Suspects suspects;
    std::deque<std::int64_t> ready;  // of them, to be sent
    std::int64_t suspects_under_way = 0;

    bool takes_one_more() const { return !is_doubtful() || requests == 0; }
    bool wants_probe() const {
      const bool fails = failures >= kFailuresMax || waits >= kWaitsMax;
      return has_died || !refused.empty() || ((fails || is_in_doubt) && !is_gone);
    }
    // Suspects are sent by themselves.
    bool takes_any() const { return !has_died && refused.empty() && !suspects.active(); }
    bool takes_suspects() const {
      return !has_died && refused.empty() && suspects.active() && requests == suspects_under_way;
    }
    std::deque<std::int64_t>::const_iterator NextSuspect() const;
  };

  const std::deque<std::int64_t>* ToSend() const;
  static Time NextTimeOf(const Server& server, std::int64_t work);
  std::optional<std::size_t> ChooseServer(Time now, std::int64_t work) const;
  Sending SendTo(std::size_t server, std::int64_t id, bool is_retry, Time now);
  void Release(Task& task);
  void EndRefused(Server& server, bool are_to_blame, const Verdict& verdict, Time now);
  void Queue(std::int64_t id, std::deque<std::int64_t>& unless_suspect);
  void Charge(Task& task, Server& server, Time now);
  void TakeRates(const Task& task, Server& server, const Verdict& verdict, Time now);
  std::optional<Sending> NextSuspect(Time now);
  void NoteLoss(const Sending& sent, std::int64_t number, const Verdict& verdict, Time now);
  void Die(std::size_t server, const std::string& how, bool hung, Time now);
  void Condemn(std::int64_t id, std::size_t server, const std::string& how, bool hung);
  void Fail(std::int64_t id, Completion completion);
  void Acquit(std::size_t server);
  void MoveSuspects(std::size_t from, std::size_t to);
  void MoveSuspectsOfGoneServers(Time now);
  void ClearSuspect(std::int64_t id, const Task& task);
  void TakeReply(Server& server, const Verdict& verdict, Time now);
  void CountAnswer(Time now);
  void NoteWait(const Verdict& verdict, Task& task);
  void Doubt(Server& server, const Task& task, const Verdict& verdict, Time now) const;
  bool ConfirmTimeout(Task& task) const;
  void QueueWhatIsDue(Time now);
  void SetFailing(Time now);
  std::optional<Completion> TryAgain(std::int64_t id, Task& task, const Verdict& verdict, Time now);
  std::chrono::milliseconds NextBackoff(std::chrono::milliseconds last);
  bool AllAreDoubtful() const;

  const DispatchOptions options_;
  SendWindow window_;
  SendRate rate_;
  RetryQuota quota_;
  std::mt19937_64 random_;
  std::vector<Server> servers_;
  std::unordered_map<std::int64_t, Task> tasks_;
  std::deque<std::int64_t> ready_, again_;   // to be sent for the first time, and again
  std::multimap<Time, std::int64_t> later_;  // again, then
  std::int64_t under_way_ = 0, retries_under_way_ = 0;
  std::int64_t under_way_when_sent_ = 0;  // what the window let happen: many may end at once
  std::int64_t num_sent_ = 0;
  std::vector<Completion> failed_;
  std::int64_t num_answers_ = 0;
  std::string why_stopped_;
  std::int64_t num_timeouts_ = 0;
  // Time that passed from answer to answer, without what lay in between of outages.
  std::chrono::milliseconds clock_{0};
  std::optional<Time> last_answer_;
  bool had_outage_ = false;            // since
  bool had_wait_ = false;              // since, of a row that is told to wait again and again
  std::optional<Time> failing_since_;  // no answer since, but failures
  std::string last_failure_;
};

}  // namespace millstream
