// SPDX-License-Identifier: Apache-2.0
// The engine with a server that it launches: test_child/main.cc.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "openai/engine_testing.h"
#include "openai/openai_engine.h"

namespace millstream {
namespace {

using std::chrono::hours;

class LaunchedEngineTest : public testing::Test {
 protected:
  OpenAiEngineOptions Options(const std::string& how) {
    OpenAiEngineOptions options;
    options.launch.emplace();
    options.launch->name = "models.local";
    options.launch->launch.command = {MS_TEST_CHILD, how, "{port}"};
    options.launch->launch.folder = folder_;
    options.launch->launch.log = folder_ + "/log";
    options.launch->launch.guard = {MS_TEST_CHILD};
    options.launch->life.check_interval = std::chrono::milliseconds(10);
    options.launch->life.backoff_first = std::chrono::milliseconds(1);
    options.launch->say = [this](const std::string& line) { said_.push_back(line); };
    options.backoff_first = std::chrono::milliseconds(1);
    options.probes = {{"/chat/completions", "probe"}};
    return options;
  }
  std::string Log() const {
    std::ostringstream text;
    text << std::ifstream(folder_ + "/log").rdbuf();
    return text.str();
  }
  const std::string folder_ = testing::TempDir() + "launched-" + std::to_string(getpid());
  std::vector<std::string> said_;  // by the engine's thread: read it once that is gone

  void SetUp() override { ASSERT_EQ(system(("mkdir -p " + folder_).c_str()), 0); }
  void TearDown() override { (void)!system(("rm -rf " + folder_).c_str()); }
};

TEST_F(LaunchedEngineTest, AServerIsStartedAskedAndEndedWithTheEngine) {
  for (const std::string how : {"serves", "has-no-health"}) {
    auto engine = MakeOpenAiEngine(Options(how));
    ASSERT_TRUE(engine.ok()) << engine.status();
    (*engine)->Submit(Asking(1, "abc"));
    EXPECT_EQ(Await(**engine, 1).at(1).text, "re: 3");
    engine->reset();
    EXPECT_NE(Log().find("it serves"), std::string::npos);
  }
}

TEST_F(LaunchedEngineTest, NothingOfAServerIsLeftThatHasAChildOutsideItsGroup) {
  auto engine = MakeOpenAiEngine(Options("leaves-a-child"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  int child = 0;
  std::ifstream(folder_ + "/child") >> child;
  ASSERT_GT(child, 0);
  EXPECT_EQ(kill(child, 0), 0);
  engine->reset();
  EXPECT_EQ(kill(child, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(LaunchedEngineTest, OneThatEndsBeforeItIsReadyIsAnErrorWithTheEndOfItsLog) {
  const Status failed = MakeOpenAiEngine(Options("fails")).status();
  EXPECT_TRUE(failed.IsInvalid()) << failed;
  EXPECT_NE(failed.message().find("exit code 3"), std::string::npos) << failed;
  EXPECT_NE(failed.message().find("no such model"), std::string::npos) << failed;
}

TEST_F(LaunchedEngineTest, ACommandThatThereIsNotIsAnError) {
  OpenAiEngineOptions options = Options("");
  options.launch->launch.command = {"no-such-server", "{port}"};
  const Status failed = MakeOpenAiEngine(std::move(options)).status();
  EXPECT_TRUE(failed.IsInvalid()) << failed;
  EXPECT_NE(failed.message().find("No such file or directory"), std::string::npos) << failed;
}

TEST_F(LaunchedEngineTest, AStopEndsTheWaitForAServerThatIsNeverReady) {
  std::stop_source stop;
  OpenAiEngineOptions options = Options("never-ready");
  options.launch->say = [&](const std::string&) { stop.request_stop(); };  // it was started
  EXPECT_TRUE(MakeOpenAiEngine(std::move(options), stop.get_token()).status().IsCancelled());
}

TEST_F(LaunchedEngineTest, ARowThatKillsItsServerFailsAlone) {
  auto engine = MakeOpenAiEngine(Options("serves"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  constexpr RequestId kCount = 60;
  for (RequestId id = 1; id <= kCount; ++id) {
    (*engine)->Submit(
        Asking(id, id == 17 ? "please die" : std::string(static_cast<std::size_t>(id), 'x'))
    );
  }
  const auto all = Await(**engine, kCount);
  for (const auto& [id, completion] : all) {
    if (id == 17) {
      EXPECT_EQ(completion.error_code, "crash");
      EXPECT_NE(completion.error_message.find("SIGABRT"), std::string::npos)
          << completion.error_message;
    } else {
      EXPECT_EQ(completion.text, "re: " + std::to_string(id));
    }
  }
  const EngineStats stats = (*engine)->stats();
  EXPECT_GE(stats.restarts, 1);  // nobody waits for the one after the row's second death
  EXPECT_LE(stats.restarts, 3);
  EXPECT_EQ(stats.requests_crashed, 1);
}

TEST_F(LaunchedEngineTest, OneThatDiesOfEverythingBreaksTheEngine) {
  OpenAiEngineOptions options = Options("serves");
  options.probes = {{"/chat/completions", "die of this too"}};
  auto engine = MakeOpenAiEngine(std::move(options));
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Submit(Asking(1, "die"));
  const Status broken = (*engine)->Poll(std::chrono::steady_clock::now() + hours(1), {}).status();
  EXPECT_TRUE(IsEngineBroken(broken)) << broken;
  EXPECT_NE(broken.message().find("again and again"), std::string::npos) << broken;
  EXPECT_NE(broken.message().find("it serves"), std::string::npos) << broken;  // its log's end
}

TEST_F(LaunchedEngineTest, OneThatDiesWhileItIsAskedWhetherItIsReadyIsStartedAgain) {
  auto engine = MakeOpenAiEngine(Options("starts-badly-once"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Submit(Asking(1, "die"));
  EXPECT_EQ(Await(**engine, 1).at(1).error_code, "crash");
  EXPECT_GE((*engine)->stats().restarts, 2);  // one of them of no request
}

// The first question is without a reply while the second is asked.
TEST_F(LaunchedEngineTest, OneThatIsSilentTwiceIsProbedTwice) {
  OpenAiEngineOptions options = Options("silent");
  options.launch->life.silence = std::chrono::milliseconds(5);
  auto engine = MakeOpenAiEngine(std::move(options));
  ASSERT_TRUE(engine.ok()) << engine.status();
  for (RequestId id = 1; id <= 5; ++id) (*engine)->Submit(Asking(id, "abc"));
  for (const auto& [id, completion] : Await(**engine, 5)) {
    EXPECT_EQ(completion.text, "re: 3") << id;
  }
  EXPECT_EQ((*engine)->stats().restarts, 0);
}

TEST_F(LaunchedEngineTest, OneThatHangsIsKilledAndStartedAgain) {
  OpenAiEngineOptions options = Options("hangs-once");
  options.launch->life.silence = std::chrono::milliseconds(20);
  options.launch->life.probe_limit = std::chrono::milliseconds(20);
  auto engine = MakeOpenAiEngine(std::move(options));
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Submit(Asking(1, "abc"));
  EXPECT_EQ(Await(**engine, 1).at(1).text, "re: 3");
  EXPECT_GE((*engine)->stats().restarts, 1);
  EXPECT_EQ((*engine)->stats().requests_crashed, 0);
}

}  // namespace
}  // namespace millstream
