// SPDX-License-Identifier: Apache-2.0
// Servers that die, of a row or otherwise.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "openai/dispatch.h"
#include "openai/engine_testing.h"

namespace millstream {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Kind = Verdict::Kind;
using Time = Dispatch::Time;

Verdict Refused() {
  Verdict gone = Of(Kind::kGone);
  gone.is_refused = true;
  return gone;
}

// Servers that die of some rows, with all that they have, and come back 40 seconds later.
class MortalServers {
 public:
  explicit MortalServers(std::size_t count) : down_until_(count) {
    options_.num_servers = count;
    options_.max_in_flight = 12;
  }

  std::set<std::int64_t> killers;
  bool is_launched = false;
  // All are stopped, and started again: from, until.
  std::vector<std::pair<Time, Time>> outages;

  std::map<std::int64_t, std::string> ends;  // of rows: "ok" or a code
  std::map<std::size_t, int> answers;        // by server
  int deaths = 0;
  std::size_t most_with_a_suspect = 0;  // under way where one was that a server had died of
  Time now{};

  void Run(std::int64_t count) {
    options_.is_launched = is_launched;
    Dispatch dispatch(options_, 1);
    std::int64_t added = 0;
    while (std::ssize(ends) < count) {
      ASSERT_EQ(dispatch.WhyStopped(now), "");
      ASSERT_LT(now, Time() + minutes(1000));
      StopServers(dispatch);
      while (added < count && dispatch.room() > 0) dispatch.Add(++added, 1);
      while (const auto sent = dispatch.Next(now)) Send(dispatch, *sent);
      Look(dispatch);
      ReplyToOne(dispatch);
      for (const Completion& crash : dispatch.TakeFailed()) {
        EXPECT_TRUE(crash.killed_engine);
        End(crash.id, crash.error_code);
      }
      const auto next = dispatch.NextTime();
      now =
          inside_.empty() && next ? std::max(*next, now + milliseconds(1)) : now + milliseconds(5);
    }
  }

 private:
  bool IsDown(std::size_t server) const { return now < down_until_[server]; }
  void End(std::int64_t id, const std::string& how) {
    EXPECT_TRUE(ends.emplace(id, how).second) << "twice: " << id;
  }

  void Send(Dispatch& dispatch, const Dispatch::Sending& sent) {
    if (IsDown(sent.server)) {
      EXPECT_FALSE(dispatch.Ended(sent.id, Refused(), now));
      return;
    }
    inside_.push_back(sent);
    const auto is_with = [&](const auto& other) { return other.server == sent.server; };
    const auto with =
        static_cast<std::size_t>(std::count_if(inside_.begin(), inside_.end(), is_with));
    if (died_of_.contains(sent.id)) most_with_a_suspect = std::max(most_with_a_suspect, with);
  }

  void Look(Dispatch& dispatch) {
    while (const auto server = dispatch.NextLook(now)) {
      dispatch.Looked(*server, IsDown(*server) ? Refused() : Of(Kind::kStop), now);
    }
    while (const auto server = dispatch.NextProbe(now)) {
      dispatch.Probed(*server, IsDown(*server) ? Refused() : Of(Kind::kAnswer), now);
    }
  }

  void ReplyToOne(Dispatch& dispatch) {
    if (inside_.empty()) return;
    std::swap(inside_[random_() % inside_.size()], inside_.back());
    const Dispatch::Sending sent = inside_.back();
    if (killers.contains(sent.id)) {
      ++deaths;
      down_until_[sent.server] = now + seconds(40);
      return TakeDown(dispatch, sent.server);
    }
    if (random_() % 4 != 0) return;
    inside_.pop_back();
    EXPECT_TRUE(dispatch.Ended(sent.id, Of(Kind::kAnswer), now));
    ++answers[sent.server];
    End(sent.id, "ok");
  }

  void StopServers(Dispatch& dispatch) {
    if (outages.empty() || now < outages.front().first) return;
    for (std::size_t server = 0; server < down_until_.size(); ++server) {
      down_until_[server] = outages.front().second;
      TakeDown(dispatch, server);
    }
    outages.erase(outages.begin());
  }

  void TakeDown(Dispatch& dispatch, std::size_t server) {
    std::vector<std::int64_t> lost;
    std::erase_if(inside_, [&](const auto& sent) {
      if (sent.server == server) lost.push_back(sent.id);
      return sent.server == server;
    });
    died_of_.insert(lost.begin(), lost.end());
    for (const std::int64_t id : lost) EXPECT_FALSE(dispatch.Ended(id, Of(Kind::kLost), now));
    if (!is_launched) return;
    now = down_until_[server];  // its launcher waits until it is there again
    dispatch.ServerDied(server, "SIGSEGV", /*hung=*/false, now);
  }

  DispatchOptions options_;
  std::mt19937_64 random_{7};
  std::vector<Time> down_until_;
  std::vector<Dispatch::Sending> inside_;
  std::set<std::int64_t> died_of_;
};

std::map<std::int64_t, std::string> AllOkBut(
    std::int64_t count, const std::set<std::int64_t>& rows
) {
  std::map<std::int64_t, std::string> ends;
  for (std::int64_t id = 1; id <= count; ++id) ends[id] = rows.contains(id) ? "crash" : "ok";
  return ends;
}

TEST(DispatchDeathsTest, RowsThatKillTheirServerFailAloneAfterAtMostThreeDeathsEach) {
  for (const bool is_launched : {false, true}) {
    MortalServers servers(1);
    servers.is_launched = is_launched;
    servers.killers = {20, 60};
    servers.Run(100);
    EXPECT_EQ(servers.ends, AllOkBut(100, servers.killers));
    EXPECT_GE(servers.deaths, 4);
    EXPECT_LE(servers.deaths, 6);
    EXPECT_LE(servers.most_with_a_suspect, 3U);  // the root of twelve
  }
}

TEST(DispatchDeathsTest, ARowThatIsTheOnlyOneIsBlamedAsAProbeWasAnsweredInBetween) {
  MortalServers servers(1);
  servers.killers = {1};
  servers.Run(1);
  EXPECT_EQ(servers.ends, AllOkBut(1, {1}));
  EXPECT_EQ(servers.deaths, 2);
}

TEST(DispatchDeathsTest, OtherServersServeTheRestMeanwhile) {
  MortalServers servers(2);
  servers.killers = {5};
  servers.Run(9000);
  EXPECT_EQ(servers.ends, AllOkBut(9000, {5}));
  EXPECT_LE(servers.deaths, 3);  // all of one server, which comes back after two minutes at most
  EXPECT_GT(std::min(servers.answers[0], servers.answers[1]), 1000);
}

TEST(DispatchDeathsTest, ServersThatAreStoppedAndStartedAgainFailNoRow) {
  for (const std::size_t count : {1, 3}) {
    MortalServers servers(count);
    for (int i = 0; i < 20; ++i) {
      const Time from = Time() + minutes(i * 5);
      servers.outages.emplace_back(from, from + minutes(4));
    }
    servers.Run(3000);
    EXPECT_EQ(servers.ends, AllOkBut(3000, {}));
  }
}

class SuspectTest : public testing::Test {
 protected:
  explicit SuspectTest(std::size_t servers = 1) : dispatch_(Options(servers), 1) {}
  static DispatchOptions Options(std::size_t servers) {
    DispatchOptions options;
    options.num_servers = servers;
    options.max_in_flight = 4;
    return options;
  }
  Dispatch dispatch_;
  Time now_{};
};

// What a look finds each time after the row's connection broke, while probes are answered.
struct Look {
  const char* name;
  Verdict found;
  bool is_death;
};
class LookTest : public SuspectTest, public testing::WithParamInterface<Look> {};

TEST_P(LookTest, ARowIsBlamedOnlyIfThePortRefuses) {
  dispatch_.Add(1, 1);
  std::vector<Completion> crashed;
  for (int sent = 0; sent < 20 && crashed.empty();) {
    if (dispatch_.NextProbe(now_)) dispatch_.Probed(0, Of(Kind::kAnswer), now_);
    if (dispatch_.NextLook(now_)) {
      EXPECT_FALSE(dispatch_.NextLook(now_));  // one at a time
      dispatch_.Looked(0, GetParam().found, now_);
    }
    if (dispatch_.Next(now_)) {
      ++sent;
      EXPECT_FALSE(dispatch_.Ended(1, Of(Kind::kLost), now_));
    }
    crashed = dispatch_.TakeFailed();
    now_ += milliseconds(100);
    ASSERT_LT(now_, Time() + minutes(60));
  }
  EXPECT_EQ(crashed.size(), GetParam().is_death ? 1U : 0U);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    LookTest,
    testing::Values(
        Look{"Refused", Refused(), true},
        Look{"NoNetwork", Of(Kind::kGone), false},
        Look{"Answer", Of(Kind::kAnswer), false},
        Look{"NotFound", Of(Kind::kStop), false},
        Look{"Busy", Of(Kind::kUnavailable), false}
    ),
    [](const auto& instance) { return instance.param.name; }
);

// A process that is dying takes connections and breaks them, and soon another is in its place.
TEST_F(SuspectTest, ALookThatTellsNothingIsRepeatedSoonAndThenLessOften) {
  dispatch_.Add(1, 1);
  ASSERT_TRUE(dispatch_.Next(now_));
  EXPECT_FALSE(dispatch_.Ended(1, Of(Kind::kLost), now_));
  std::vector<milliseconds> waits;
  for (Time last = now_; waits.size() < 9; last = now_) {
    while (!dispatch_.NextLook(now_)) now_ += milliseconds(1);
    dispatch_.Looked(0, Of(Kind::kLost), now_);
    waits.push_back(std::chrono::duration_cast<milliseconds>(now_ - last));
  }
  EXPECT_EQ(waits[0], milliseconds(0));
  EXPECT_EQ(waits[1], milliseconds(10));
  EXPECT_EQ(waits[2], milliseconds(20));
  EXPECT_EQ(waits[8], milliseconds(1000));
}

TEST_F(SuspectTest, NoRowIsRiskedBeforeAProbeIsAnsweredThenSuspectsGoFirst) {
  for (int id = 1; id <= 3; ++id) dispatch_.Add(id, 1);
  for (int id = 1; id <= 2; ++id) ASSERT_EQ(dispatch_.Next(now_)->id, id);
  for (int id = 1; id <= 2; ++id) EXPECT_FALSE(dispatch_.Ended(id, Of(Kind::kLost), now_));
  ASSERT_TRUE(dispatch_.NextLook(now_));
  dispatch_.Looked(0, Refused(), now_);
  std::optional<std::size_t> probe;
  while (!(probe = dispatch_.NextProbe(now_))) {
    ASSERT_FALSE(dispatch_.Next(now_));
    ASSERT_GE(*dispatch_.NextTime(), now_);
    now_ = std::max(now_ + milliseconds(1), *dispatch_.NextTime());
  }
  dispatch_.Probed(0, Of(Kind::kUnavailable), now_);  // it starts
  EXPECT_FALSE(dispatch_.Next(now_ + seconds(60)));
  now_ += seconds(60);
  ASSERT_TRUE(dispatch_.NextProbe(now_));
  dispatch_.Probed(0, Of(Kind::kAnswer), now_);
  const auto first = dispatch_.Next(now_);
  ASSERT_TRUE(first);
  EXPECT_NE(first->id, 3);
  EXPECT_FALSE(dispatch_.Next(now_));  // alone
  EXPECT_TRUE(dispatch_.Ended(first->id, Of(Kind::kAnswer), now_));
  const auto second = dispatch_.Next(now_);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->id, 3 - first->id);
  dispatch_.Cancel(second->id);  // a suspect that nobody waits for holds nobody up
  EXPECT_EQ(dispatch_.Next(now_)->id, 3);
}

TEST_F(SuspectTest, AProbeThatTheServerRefusesForGoodStopsTheJob) {
  dispatch_.Add(1, 1);
  ASSERT_TRUE(dispatch_.Next(now_));
  EXPECT_FALSE(dispatch_.Ended(1, Of(Kind::kLost), now_));
  ASSERT_TRUE(dispatch_.NextLook(now_));
  dispatch_.Looked(0, Refused(), now_);
  now_ += minutes(1);
  ASSERT_TRUE(dispatch_.NextProbe(now_));
  dispatch_.Probed(0, Of(Kind::kStop), now_);
  EXPECT_EQ(dispatch_.WhyStopped(now_), "as scripted");
}

// Three rows, of which one hangs the server whenever it is sent, until it is killed: which of them
// have timed out by then? The connections of the others break.
enum class TimesOut { kNone, kIt, kAll };
class HangTest : public SuspectTest, public testing::WithParamInterface<TimesOut> {};

TEST_P(HangTest, TheRowThatHangsALaunchedServerEndsAsTimeoutAndNoOther) {
  DispatchOptions options = Options(1);
  options.is_launched = true;
  Dispatch dispatch(options, 1);
  constexpr std::int64_t kHangs = 2;
  for (int id = 1; id <= 3; ++id) dispatch.Add(id, 1);
  std::map<std::int64_t, std::string> ends;
  int hangs = 0;
  for (int i = 0; i < 1000 && ends.size() < 3; ++i) {
    if (dispatch.NextProbe(now_)) dispatch.Probed(0, Of(Kind::kAnswer), now_);
    std::set<std::int64_t> sent;
    while (const auto sending = dispatch.Next(now_)) sent.insert(sending->id);
    const bool is_hung = sent.contains(kHangs);
    for (const std::int64_t id : sent) {
      Verdict verdict = Of(Kind::kAnswer);
      if (is_hung) {
        const bool times_out =
            GetParam() == TimesOut::kAll || (GetParam() == TimesOut::kIt && id == kHangs);
        verdict = Of(times_out ? Kind::kTimeout : Kind::kLost);
      }
      if (dispatch.Ended(id, verdict, now_)) ends[id] = "ok";
    }
    if (is_hung) {
      ++hangs;
      now_ += minutes(11);
      dispatch.ServerDied(0, "it hung, and was killed", /*hung=*/true, now_);
    }
    for (const Completion& failed : dispatch.TakeFailed()) {
      EXPECT_FALSE(failed.killed_engine);
      ends[failed.id] = failed.error_code;
    }
    ASSERT_EQ(dispatch.WhyStopped(now_), "");
    now_ += seconds(1);
  }
  EXPECT_EQ(ends, (std::map<std::int64_t, std::string>{{1, "ok"}, {2, "timeout"}, {3, "ok"}}));
  EXPECT_EQ(hangs, 3);
}

INSTANTIATE_TEST_SUITE_P(
    All, HangTest, testing::Values(TimesOut::kNone, TimesOut::kIt, TimesOut::kAll)
);

TEST_F(SuspectTest, ALaunchedServerThatIsBackAndAnswersNothingEndsTheJob) {
  DispatchOptions options = Options(1);
  options.is_launched = true;
  options.gone_limit = minutes(15);
  Dispatch dispatch(options, 1);
  dispatch.Add(1, 1);
  ASSERT_TRUE(dispatch.Next(now_));
  EXPECT_FALSE(dispatch.Ended(1, Of(Kind::kLost), now_));
  dispatch.ServerDied(0, "SIGSEGV", /*hung=*/false, now_);
  while (dispatch.WhyStopped(now_).empty()) {
    ASSERT_LT(now_, Time() + minutes(17));
    if (dispatch.NextProbe(now_)) {
      EXPECT_TRUE(dispatch.is_asking());
      dispatch.Probed(0, Of(Kind::kAgain), now_);
      EXPECT_TRUE(dispatch.failing_since());
    }
    now_ += seconds(1);
  }
  EXPECT_GE(now_, Time() + minutes(15));
}

// After a death that none is to blame for, a row that fails however often holds no other up.
TEST_F(SuspectTest, ASuspectThatFailsAndLeavesTheServerAliveIsNoneAnyMore) {
  for (const Kind fails : {Kind::kAgain, Kind::kUnavailable, Kind::kTimeout, Kind::kBusy}) {
    SCOPED_TRACE(static_cast<int>(fails));
    Dispatch dispatch(Options(1), 1);
    constexpr int kRows = 50;
    for (int id = 1; id <= kRows; ++id) dispatch.Add(id, 1);
    for (int id = 1; id <= 4; ++id) ASSERT_TRUE(dispatch.Next(now_));
    for (int id = 1; id <= 4; ++id) EXPECT_FALSE(dispatch.Ended(id, Of(Kind::kLost), now_));
    ASSERT_TRUE(dispatch.NextLook(now_));
    dispatch.Looked(0, Refused(), now_);
    int answered = 0;
    const Time begun = now_;
    while (answered < kRows - 1) {
      ASSERT_LT(now_, begun + minutes(5));
      if (dispatch.NextProbe(now_)) dispatch.Probed(0, Of(Kind::kAnswer), now_);
      while (const auto sending = dispatch.Next(now_)) {
        if (dispatch.Ended(sending->id, Of(sending->id == 3 ? fails : Kind::kAnswer), now_)) {
          ++answered;
        }
      }
      now_ += milliseconds(100);
    }
  }
}

class TwoServersTest : public SuspectTest {
 protected:
  TwoServersTest() : SuspectTest(2) {}
};

TEST_F(TwoServersTest, SuspectsOfAServerThatStaysAwayAreTriedOnAnotherByThemselves) {
  for (int id = 1; id <= 4; ++id) dispatch_.Add(id, 1);
  std::map<std::size_t, std::set<std::int64_t>> sent;
  for (int i = 0; i < 4; ++i) {
    const auto sending = dispatch_.Next(now_);
    ASSERT_TRUE(sending);
    sent[sending->server].insert(sending->id);
  }
  ASSERT_EQ(sent[0].size(), 2U);
  for (const std::int64_t id : sent[0]) EXPECT_FALSE(dispatch_.Ended(id, Of(Kind::kLost), now_));
  ASSERT_EQ(dispatch_.NextLook(now_), 0U);
  dispatch_.Looked(0, Refused(), now_);
  now_ += seconds(119);
  EXPECT_FALSE(dispatch_.Next(now_));
  now_ += seconds(2);
  EXPECT_FALSE(dispatch_.Next(now_));  // others are in flight there
  for (const std::int64_t id : sent[1]) EXPECT_TRUE(dispatch_.Ended(id, Of(Kind::kAnswer), now_));
  dispatch_.Add(5, 1);
  for (const std::int64_t id : sent[0]) {
    const auto sending = dispatch_.Next(now_);
    ASSERT_TRUE(sending);
    EXPECT_EQ(sending->server, 1U);
    EXPECT_NE(sending->id, 5);
    EXPECT_FALSE(dispatch_.Next(now_)) << id;
    EXPECT_TRUE(dispatch_.Ended(sending->id, Of(Kind::kAnswer), now_));
  }
  EXPECT_EQ(dispatch_.Next(now_)->id, 5);
}

// Each may fail what it has before it dies.
TEST_F(TwoServersTest, ARowThatFailedAtTwoServersThatDiedIsASuspectOfOne) {
  dispatch_.Add(1, 1);
  ASSERT_EQ(dispatch_.Next(now_)->server, 0U);
  EXPECT_FALSE(dispatch_.Ended(1, Of(Kind::kAgain), now_));
  dispatch_.Add(2, 100);
  ASSERT_EQ(dispatch_.Next(now_)->server, 0U);
  now_ += seconds(5);
  ASSERT_EQ(dispatch_.Next(now_)->server, 1U);
  EXPECT_FALSE(dispatch_.Ended(1, Of(Kind::kAgain), now_));
  dispatch_.Add(3, 1);
  ASSERT_EQ(dispatch_.Next(now_)->server, 1U);
  EXPECT_FALSE(dispatch_.Ended(2, Refused(), now_));
  EXPECT_FALSE(dispatch_.Ended(3, Refused(), now_));
  std::set<std::int64_t> answered;
  while (answered.size() < 3) {
    ASSERT_LT(now_, Time() + minutes(20));
    now_ += seconds(1);
    while (const auto server = dispatch_.NextProbe(now_)) {
      dispatch_.Probed(*server, Of(Kind::kAnswer), now_);
    }
    while (const auto sent = dispatch_.Next(now_)) {
      EXPECT_TRUE(dispatch_.Ended(sent->id, Of(Kind::kAnswer), now_));
      answered.insert(sent->id);
    }
  }
  dispatch_.Add(4, 1);
  dispatch_.Add(5, 1);
  std::set<std::size_t> servers;
  for (int i = 0; i < 2; ++i) servers.insert(dispatch_.Next(now_)->server);
  EXPECT_EQ(servers.size(), 2U) << "both take any row again";
}

}  // namespace
}  // namespace millstream
