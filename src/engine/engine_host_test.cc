// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_host.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <thread>

#include "engine/frames.h"
#include "engine/scripted_engine.h"
#include "engine/testing.h"

namespace millstream {
namespace {

/// Serves an engine on a thread; the test is the parent.
class EngineHostTest : public testing::Test {
 protected:
  ~EngineHostTest() override {
    if (thread_.joinable()) Hangup();
    close(ends_[0]);
    close(ends_[1]);
  }

  void Serve(const Status& start = Status::OK()) {
    thread_ = std::thread([this, start] {
      served_ = ServeEngine(ends_[1], [&]() -> Result<ServedEngine> {
        if (!start.ok()) return start;
        ServedEngine served;
        served.engine = MakeScriptedEngine({});
        return served;
      });
    });
  }
  /// Ends the parent's side. What the child returns is in served_ then.
  void Hangup() {
    shutdown(ends_[0], SHUT_RDWR);
    thread_.join();
  }
  void Send(FrameKind kind, RequestId id, const std::string& rest) {
    WireWriter frame;
    frame.U8(static_cast<std::uint8_t>(kind));
    frame.I64(id);
    EXPECT_TRUE(WriteFrame(ends_[0], frame.Take() + rest).ok());
  }
  /// The next frame, of this kind, without the byte that says so.
  std::string Expect(FrameKind kind) {
    while (true) {
      if (const auto frame = reader_.Next().ValueOrDie()) {
        EXPECT_EQ(static_cast<FrameKind>(frame->front()), kind);
        return frame->substr(1);
      }
      if (reader_.Receive(/*wait=*/true) == FrameReader::Arrival::kBytes) continue;
      ADD_FAILURE() << "the socket ended";
      return "";
    }
  }
  Completion ExpectCompletion() {
    const std::string frame = Expect(FrameKind::kReport);
    WireReader in(frame);
    ReadStats(in);
    EXPECT_EQ(in.U32(), 1U);
    return DecodeCompletion(in.Text()).ValueOrDie();
  }
  /// Whether for want of memory, and why.
  std::pair<bool, std::string> ExpectFailure() {
    const std::string frame = Expect(FrameKind::kFailed);
    WireReader in(frame);
    const bool is_oom = in.Bool();
    return {is_oom, in.Text()};
  }

  const std::array<int, 2> ends_ = [] {
    std::array<int, 2> ends{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    return ends;
  }();
  FrameReader reader_{ends_[0]};
  Status served_ = Status::OK();
  std::thread thread_;
};

TEST_F(EngineHostTest, TellsItsRoomAnswersAndEndsWithTheSocket) {
  Serve();
  const std::string ready = Expect(FrameKind::kReady);
  WireReader in(ready);
  EXPECT_EQ(ReadRoom(in).requests, 64);
  Request request;
  request.id = 5;
  request.prompt_tokens = {1, 2};
  Send(FrameKind::kSubmit, 5, EncodeRequest(request));
  EXPECT_EQ(ExpectCompletion().prompt_tokens, 2);
  Hangup();
  EXPECT_TRUE(served_.ok());
}

TEST_F(EngineHostTest, RefusesWhatIsNoRequestAlone) {
  Serve();
  Expect(FrameKind::kReady);
  const auto model = OpenTinyLanguageModel({});
  const auto grammars =
      GrammarCompiler::Make(model->tokenizer, model->stop_tokens).MoveValueUnsafe();
  Request request;
  request.grammar = grammars->Compile(Grammar::Kind::kRegex, "a").ValueOrDie();  // nobody compiles
  Send(FrameKind::kSubmit, 6, EncodeRequest(request));
  const Completion refused = ExpectCompletion();
  EXPECT_EQ(refused.id, 6);
  EXPECT_EQ(refused.error_code, "invalid_request");
  Send(FrameKind::kSubmit, 7, "nonsense");
  EXPECT_EQ(ExpectCompletion().error_code, "invalid_request");
}

TEST_F(EngineHostTest, EndsOnFramesThatAreNone) {
  Serve();
  Expect(FrameKind::kReady);
  EXPECT_TRUE(WriteFrame(ends_[0], "\x09").ok());
  EXPECT_FALSE(ExpectFailure().second.empty());
  Hangup();
  EXPECT_TRUE(served_.IsInvalid());
}

TEST_F(EngineHostTest, TellsWhyItDoesNotStart) {
  Serve(Status::OutOfMemory("too large"));
  EXPECT_EQ(ExpectFailure(), std::pair(true, std::string("too large")));
}

TEST_F(EngineHostTest, ItsArgumentsAreNotForPeople) {
  EXPECT_TRUE(HostNativeEngine({}).IsInvalid());
  EXPECT_TRUE(HostNativeEngine({"m", "1", "x", "1", "f32", "1", "1"}).IsInvalid());
}

}  // namespace
}  // namespace millstream
