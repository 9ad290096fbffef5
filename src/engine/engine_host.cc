// SPDX-License-Identifier: Apache-2.0
#include "engine/engine_host.h"

#include <sys/prctl.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <new>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/task_scope.h"
#include "engine/child_process.h"
#include "engine/flight_recorder.h"
#include "engine/frames.h"

namespace millstream {
namespace {

constexpr auto kTick = std::chrono::milliseconds(50);  // at most so late is news of progress

template <typename Number>
bool ParseNumber(const std::string& text, Number* number) {
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && stopped == end;
}

Completion Refusal(RequestId id, const Status& status) {
  Completion completion;
  completion.id = id;
  completion.reason = FinishReason::kError;
  completion.error_code = "invalid_request";
  completion.error_message = status.message();
  return completion;
}

/// Returns the failure.
Status TellFailure(int socket, const Status& status) {
  WireWriter failed;
  failed.U8(static_cast<std::uint8_t>(FrameKind::kFailed));
  failed.Bool(status.IsOutOfMemory());
  failed.Text(status.message());
  (void)WriteFrame(socket, failed.Take());
  return status;
}

/// One thread reads frames, the other polls the engine and writes.
class Server {
 public:
  Server(int socket, ServedEngine served) : socket_(socket), served_(std::move(served)) {}

  Status Run() {
    WireWriter ready;
    ready.U8(static_cast<std::uint8_t>(FrameKind::kReady));
    WriteRoom(served_.engine->room(), ready);
    MS_RETURN_NOT_OK(WriteFrame(socket_, ready.Take()));
    std::stop_source parent_gone;
    TaskScope reader;
    reader.Spawn([&](std::stop_token) {
      Status status = Read();
      parent_gone.request_stop();
      return status;
    });
    Status status = Poll(parent_gone.get_token());
    if (status.ok()) status = reader.Join();
    // The reader ends with the socket: the parent's end of it, once it has heard of a failure.
    return status.ok() ? status : TellFailure(socket_, status);
  }

 private:
  Status Read() try {
    FrameReader frames(socket_);
    while (frames.Receive(/*wait=*/true) == FrameReader::Arrival::kBytes) {
      while (true) {
        MS_ASSIGN_OR_RETURN(const std::optional<std::string> frame, frames.Next());
        if (!frame) break;
        MS_RETURN_NOT_OK(Take(*frame));
      }
    }
    return Status::OK();
  } catch (const std::bad_alloc&) {
    return Status::OutOfMemory("no memory for a request");
  }

  Status Take(std::string_view frame) {
    constexpr std::size_t kHead = 9;  // kind and id
    WireReader head(frame.substr(0, kHead));
    const auto kind = static_cast<FrameKind>(head.Below(kFrameKinds));
    const RequestId id = head.I64();
    MS_RETURN_NOT_OK(head.Finish());
    if (kind == FrameKind::kCancel) {
      served_.engine->Cancel(id);
      return Status::OK();
    }
    if (kind != FrameKind::kSubmit) return Status::Invalid("a frame for a parent");
    auto request = DecodeRequest(frame.substr(kHead), served_.make_grammar);
    if (request.ok()) {
      served_.engine->Submit(*std::move(request));
    } else {
      MutexLock lock(mutex_);
      refused_.push_back(Refusal(id, request.status()));
    }
    return Status::OK();
  }

  Status Poll(const std::stop_token& stop) {
    EngineStats told;
    while (!stop.stop_requested()) {
      MS_ASSIGN_OR_RETURN(
          std::vector<Completion> completions,
          served_.engine->Poll(std::chrono::steady_clock::now() + kTick, stop)
      );
      {
        MutexLock lock(mutex_);
        for (Completion& refusal : refused_) completions.push_back(std::move(refusal));
        refused_.clear();
      }
      const EngineStats stats = served_.engine->stats();
      const bool progress =
          stats.steps != told.steps || stats.completion_tokens != told.completion_tokens;
      if (completions.empty() && !progress) continue;
      told = stats;
      WireWriter report;
      report.U8(static_cast<std::uint8_t>(FrameKind::kReport));
      WriteStats(stats, report);
      report.U32(static_cast<std::uint32_t>(completions.size()));
      for (const Completion& completion : completions) report.Text(EncodeCompletion(completion));
      MS_RETURN_NOT_OK(WriteFrame(socket_, report.Take()));
    }
    return Status::OK();
  }

  const int socket_;
  const ServedEngine served_;

  Mutex mutex_;
  std::vector<Completion> refused_ MS_GUARDED_BY(mutex_);
};

}  // namespace

Status ServeEngine(int socket, const std::function<Result<ServedEngine>()>& make) {
  auto made = [&]() -> Result<ServedEngine> {
    try {
      return make();
    } catch (const std::bad_alloc&) {
      return Status::OutOfMemory("no memory for the engine");
    }
  }();
  if (made.ok()) return Server(socket, std::move(made).MoveValueUnsafe()).Run();
  return TellFailure(socket, made.status());
}

Result<ServedEngine> ServeNative(
    std::shared_ptr<const LanguageModel> model, const NativeEngineOptions& options
) {
  MS_ASSIGN_OR_RETURN(auto made, GrammarCompiler::Make(model->tokenizer, model->stop_tokens));
  const std::shared_ptr<const GrammarCompiler> grammars = std::move(made);
  ServedEngine served;
  served.make_grammar = [grammars](Grammar::Kind kind, std::string_view source) {
    return grammars->Compile(kind, source);
  };
  MS_ASSIGN_OR_RETURN(served.engine, MakeNativeEngine(std::move(model), options));
  return served;
}

Status HostEngine(const std::function<Result<ServedEngine>()>& make) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a parent that is gone already has closed the socket
  MS_ASSIGN_OR_RETURN(const auto recorder, FlightRecorder::OnDescriptor(kChildRecord));
  recorder->CatchFatalSignals();
  return ServeEngine(kChildSocket, make);
}

std::vector<std::string> NativeHostCommand(
    const std::string& model_path, const NativeEngineOptions& options
) {
  return {
      "/proc/self/exe",
      "engine-host",
      model_path,
      std::to_string(options.context),
      std::to_string(options.memory_bytes),
      std::to_string(options.threads),
      std::string(ComputeName(options.compute)),
      std::to_string(options.step_tokens),
      std::to_string(options.max_sequences),
      options.isa
  };
}

Status HostNativeEngine(const std::vector<std::string>& arguments) {
  NativeEngineOptions options;
  if (arguments.size() != 8 || !ParseNumber(arguments[1], &options.context) ||
      !ParseNumber(arguments[2], &options.memory_bytes) ||
      !ParseNumber(arguments[3], &options.threads) ||
      !ParseNumber(arguments[5], &options.step_tokens) ||
      !ParseNumber(arguments[6], &options.max_sequences)) {
    return Status::Invalid("engine-host is what `isolate: true` starts, and not for people");
  }
  options.isa = arguments[7];
  options.compute = ComputeFromName(arguments[4]);
  return HostEngine([&]() -> Result<ServedEngine> {
    MS_ASSIGN_OR_RETURN(auto model, OpenLanguageModel(arguments[0], ""));
    return ServeNative(std::move(model), options);
  });
}

}  // namespace millstream
